"""How files come into the queue: accepted into a line, or refused into ``failed/``.

Files are accepted many at a time, with one commit for all (group commit), and then one rename each.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from actors.queue.book import Book
from actors.queue.job import Job, Place, Stamp
from protocol.ids import new_id
from protocol.inbox_names import printable
from protocol.messages.queue import Accept, Accepted, HistoryEntry, Refuse
from supervisor import Refused


class NotAsRead(Refused):
    """The file in the inbox is not, or no longer, the one that was validated: to be looked at again."""

    code = "not_as_read"


class NotMovable(Refused):
    """The file cannot be taken out of the inbox: its folder belongs to somebody else, or cannot be written."""

    code = "not_movable"


Answer = Accepted | NotAsRead | NotMovable


class Intake:
    """Takes what InboxWatcher hands over. The same submit id twice is one job."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def accept(self, batch: Sequence[Accept]) -> list[Answer]:
        """Put the files at the end of their lines; the answers are in the order of the batch."""
        book = self._book
        answers: list[Answer] = []
        moves: list[tuple[int, Job, Path]] = []
        doubles: list[Path] = []
        reserved: set[tuple[Place, str]] = set()
        fresh: dict[str, Job] = {}
        with book.store.transaction():
            for number, message in enumerate(batch):
                path = Path(message.path)
                stamp = self._stamp(message)
                if stamp is None or not _can_be_taken(path):
                    answers.append(_not_as_read(path) if stamp is None else _not_movable(path, errno.EACCES))
                    continue
                known = fresh.get(message.submit_id or "") or self._known(message.submit_id)
                if (before := self._before(message.submit_id, known)) is not None:
                    answers.append(before)
                    doubles.append(path)
                    continue
                job = self._accepted(message, stamp, known)
                job = book.headed(job, job.priority, reserved)
                job = msgspec.structs.replace(job, origin=book.folders.relative(path))
                book.store.put(job)
                fresh[job.id] = job
                moves.append((number, job, path))
                answers.append(accepted(job))
        self._take_out(moves, answers)
        for path in doubles:
            book.folders.disk.unlink(path, missing_ok=True)
        return answers

    def _take_out(self, moves: list[tuple[int, Job, Path]], answers: list[Answer]) -> None:
        """Move the files to their lines. One that the inbox will not give up stays there, and does not become a job."""
        book = self._book
        for done, (number, job, path) in enumerate(moves):
            try:
                refused = book.take_in(job, path)
            except (OSError, sqlite3.Error):
                book.owed += [(job, path) for _, job, path in moves[done:]]
                raise
            if refused is None:
                book.tell("accepted", job)
            else:
                answers[number] = _not_movable(path, refused.errno)
        book.sync()

    def refuse(self, message: Refuse) -> Answer:
        """Move a file that cannot be trained to ``failed/``, with its report."""
        book = self._book
        path = Path(message.path)
        if (found := book.folders.no_file(path)) is not None:
            return self._refuse_no_file(message, path, found)
        stamp = self._stamp(message)
        if stamp is None:
            return _not_as_read(path)
        if not _can_be_taken(path):
            return _not_movable(path, errno.EACCES)
        known = self._known(message.submit_id)
        if (before := self._before(message.submit_id, known)) is not None:
            book.folders.disk.unlink(path, missing_ok=True)
            return before
        job = known or self._new(message, stamp)
        job = msgspec.structs.replace(job, stamp=stamp, sha256=message.sha256, samples=0)
        return accepted(book.park(job, message.reason, message.lines, source=path))

    def _refuse_no_file(self, message: Refuse, path: Path, found: os.stat_result) -> Answer:
        """A link, a pipe or a device goes to ``failed/`` as it is: it is renamed, and never opened."""
        if found.st_dev != self._book.folders.folder("failed").stat().st_dev:
            return NotAsRead(f"{printable(path.name)} is no file, and cannot be moved to another file system")
        job = self._new(message, Stamp(0, found.st_mtime_ns))
        return accepted(self._book.park(job, message.reason, source=path))

    def _stamp(self, message: Accept | Refuse) -> Stamp | None:
        """Return the file's stamp; None if it is gone, or is not as long as it was when it was read."""
        stamp = self._book.folders.stamp(Path(message.path))
        return None if stamp is None or stamp.bytes != message.bytes else stamp

    def _known(self, submit_id: str | None) -> Job | None:
        return None if submit_id is None else self._book.store.get(submit_id)

    def _before(self, submit_id: str | None, known: Job | None) -> Accepted | None:
        """Return what a file of this submit id has become, if there was one; not of one that is being checked again."""
        if known is not None:
            return None if known.state == "checking" else accepted(known, duplicate=True)
        over = None if submit_id is None else self._book.store.last_end(submit_id)
        return None if over is None else was_accepted(over, duplicate=True)

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


def _not_as_read(path: Path) -> NotAsRead:
    return NotAsRead(f"{printable(path.name)} is gone or has changed since it was read")


def _not_movable(path: Path, code: int | None) -> NotMovable:
    return NotMovable(f"{printable(path.name)} cannot be taken out of the inbox: {os.strerror(code or errno.EIO)}")


def _can_be_taken(path: Path) -> bool:
    """Say whether the folder's permissions let us move a file out of it. The kernel may still have other reasons."""
    return os.access(path.parent, os.W_OK | os.X_OK)


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
