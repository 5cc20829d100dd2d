"""How files come into the queue: accepted into a line, or refused into ``failed/``.

Files are accepted many at a time, with one commit for all (group commit), and then one rename each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from actors.queue.book import Book
from actors.queue.folders import printable
from actors.queue.ids import new_id
from actors.queue.job import Job, Place, Stamp
from protocol.messages.queue import Accept, Accepted, HistoryEntry, Refuse
from supervisor import Refused


class NotAsRead(Refused):
    """The file in the inbox is not, or no longer, the one that was validated: to be looked at again."""

    code = "not_as_read"


class Intake:
    """Takes what InboxWatcher hands over. The same submit id twice is one job."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def accept(self, batch: Sequence[Accept]) -> list[Accepted | NotAsRead]:
        """Put the files at the end of their lines; the answers are in the order of the batch."""
        book = self._book
        answers: list[Accepted | NotAsRead] = []
        moves: list[tuple[Job, Path]] = []
        doubles: list[Path] = []
        reserved: set[tuple[Place, str]] = set()
        fresh: dict[str, Job] = {}
        with book.store.transaction():
            for message in batch:
                path = Path(message.path)
                stamp = book.folders.stamp(path)
                if stamp is None or stamp.bytes != message.bytes:
                    answers.append(NotAsRead(f"{printable(path.name)} is gone or has changed since it was read"))
                    continue
                known = fresh.get(message.submit_id or "") or self._known(message.submit_id)
                if known is not None and known.state != "checking":
                    answers.append(accepted(known, duplicate=True))
                    doubles.append(path)
                    continue
                if known is None and message.submit_id and (over := book.store.last_end(message.submit_id)) is not None:
                    answers.append(was_accepted(over, duplicate=True))
                    doubles.append(path)
                    continue
                job = self._accepted(message, stamp, known)
                job = book.headed(job, job.priority, reserved)
                job = msgspec.structs.replace(job, origin=book.folders.relative(path))
                book.store.put(job)
                fresh[job.id] = job
                moves.append((job, path))
                answers.append(accepted(job))
        for job, path in moves:
            book.tell("accepted", book.carry(job, path))
        for path in doubles:
            book.folders.disk.unlink(path, missing_ok=True)
        return answers

    def refuse(self, message: Refuse) -> Accepted | NotAsRead:
        """Move a file that cannot be trained to ``failed/``, with its report."""
        book = self._book
        path = Path(message.path)
        stamp = book.folders.stamp(path)
        if stamp is None:
            return self._refuse_no_file(message, path)
        known = self._known(message.submit_id)
        if known is not None and known.state != "checking":
            book.folders.disk.unlink(path, missing_ok=True)
            return accepted(known, duplicate=True)
        job = known or self._new(message, stamp)
        job = msgspec.structs.replace(job, stamp=stamp, sha256=message.sha256, samples=0)
        parked = book.park(job, message.reason, message.lines, source=path)
        return accepted(parked)

    def _refuse_no_file(self, message: Refuse, path: Path) -> Accepted | NotAsRead:
        """A link, a pipe or a device goes to ``failed/`` as it is: it is renamed, and never opened."""
        book = self._book
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return NotAsRead(f"{printable(path.name)} is gone")
        if found.st_dev != book.folders.folder("failed").stat().st_dev:
            return NotAsRead(f"{printable(path.name)} is no file, and cannot be moved to another file system")
        parked = book.park(self._new(message, Stamp(0, found.st_mtime_ns)), message.reason, source=path)
        return accepted(book.carry(parked, path))

    def _known(self, submit_id: str | None) -> Job | None:
        return None if submit_id is None else self._book.store.get(submit_id)

    def _accepted(self, message: Accept, stamp: Stamp, known: Job | None) -> Job:
        return msgspec.structs.replace(
            known or self._new(message, stamp),
            state="queued",
            stamp=stamp,
            sha256=message.sha256,
            samples=message.samples,
            refused=tuple(bad.line for bad in message.refused),
            last_error=None,
        )

    def _new(self, message: Accept | Refuse, stamp: Stamp) -> Job:
        now = self._book.now()
        return Job(
            id=message.submit_id or new_id(now),
            file=printable(message.file),
            state="queued",
            priority=message.priority,
            place="inbox",
            name=printable(Path(message.path).name),
            seq=self._book.store.next_seq(),
            sha256=message.sha256,
            stamp=stamp,
            samples=0,
            submitted_at=now,
        )


def accepted(job: Job, *, duplicate: bool = False) -> Accepted:
    """Return what the bringer of a file is told of its job."""
    return Accepted(
        id=job.id,
        file=job.file,
        state=job.view().state,
        reason=job.last_error if job.state == "failed" else None,
        duplicate=duplicate,
    )


def was_accepted(over: HistoryEntry, *, duplicate: bool = False) -> Accepted:
    """Return the same of a job that is over; one that did not fail is told of as ``processing``, its last state."""
    return Accepted(
        id=over.id, file=over.file, state="failed" if over.outcome == "failed" else "processing", duplicate=duplicate
    )
