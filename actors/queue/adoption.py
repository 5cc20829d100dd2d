"""Files that no row knows: put there by hand, or left alone because SQLite was lost.

In the lines they become new jobs, through the inbox, where files settle and are validated; after a loss of SQLite
they had been validated before, so what can be read quickly takes its place at once, in the order of (mtime, name).
In ``processing/`` and among what is over, the ledger tells by content hash which job a file was.
"""

from __future__ import annotations

import msgspec

from actors.queue.attempts import Tally
from actors.queue.book import Book
from actors.queue.folders import ErrorReport, fitting, original
from actors.queue.job import Job, Place, Stamp, State
from protocol.ids import new_id
from protocol.inbox_names import printable
from protocol.messages.common import Priority
from protocol.records import Ledger

READ_AT_ONCE = 256 << 20
"""Bytes of files that a rebuild reads before the daemon is up; the rest goes through the inbox afterwards. What may be
half trained is read whatever its size: only its content tells where it is to go on."""
_report = msgspec.json.Decoder(ErrorReport)


class Adoption:
    """Gives rows to files that have none."""

    def __init__(self, book: Book, ledger: Ledger | None, *, rebuilding: bool) -> None:
        self._book = book
        self._rebuilding = rebuilding
        self._budget = READ_AT_ONCE if rebuilding else 0
        self._cursors = {}
        self._committed = {}
        if ledger is not None:
            self._cursors = {cursor.sha256: cursor for cursor in ledger.cursors if book.store.get(cursor.job) is None}
            self._committed = {entry.sha256: entry for entry in ledger.committed if book.store.get(entry.job) is None}

    def processing(self) -> list[str]:
        """Give rows to what stands in ``processing/``: the ledger's job, else a new one for ``normal/``."""
        said = []
        for stamp, name in self._unknown("processing"):
            digest = self._book.folders.sha256(self._book.folders.path("processing", name))
            entry = self._committed.pop(digest, None)
            job = self._row("processing", name, stamp, "processing", "normal", digest)
            if entry is not None:
                job = msgspec.structs.replace(job, id=entry.job, file=entry.file)
            job = self._at_cursor(job)
            self._book.save(msgspec.structs.replace(job, rank=self._book.store.next_rank()))
            said.append(f"processing/{printable(name)}: no row knew it: job {job.id}")
        return said

    def ended(self) -> list[str]:
        """Give rows to what stands in ``failed/`` and ``done/``, as its report or the ledger tells of it."""
        said = []
        for stamp, name in self._unknown("failed"):
            job = self._failed(name, stamp)
            self._book.save(job)
            said.append(f"failed/{printable(name)}: no row knew it: job {job.id}")
        if self._committed:
            for stamp, name in self._unknown("done"):
                digest = self._book.folders.sha256(self._book.folders.path("done", name))
                entry = self._committed.pop(digest, None)
                if entry is not None:
                    job = self._row("done", name, stamp, "done", "normal", digest)
                    finished = self._book.now()
                    self._book.save(
                        msgspec.structs.replace(
                            job, id=entry.job, file=entry.file, stats=entry.stats, finished_at=finished
                        )
                    )
                    said.append(f"done/{printable(name)}: the ledger knows it: job {entry.job}")
        return said

    def waiting(self, added: list[tuple[Place, str]]) -> list[str]:
        """Give rows to files in the lines, in the order of (mtime, name)."""
        found: list[tuple[Stamp, str, Place]] = []
        for place, name in added:
            stamp = self._book.folders.stamp(self._book.folders.path(place, name))
            if stamp is not None:
                found.append((stamp, name, place))
        said = []
        for stamp, name, place in sorted(found, key=lambda one: (one[0].mtime_ns, one[1])):
            priority: Priority = place if place in ("high", "low") else "normal"
            path = self._book.folders.path(place, name)
            begun = self._rebuilding and any(fitting(one.file) == original(name) for one in self._cursors.values())
            if (begun or stamp.bytes <= self._budget) and name == printable(name):
                self._budget -= stamp.bytes
                digest = self._book.folders.sha256(path)
                job = self._at_cursor(self._row(place, name, stamp, "queued", priority, digest))
                self._book.save(job)
                self._book.tell("accepted", job, "found in its line")
                said.append(f"{place}/{name}: no row knew it: job {job.id}")
            else:
                self._book.folders.to_inbox(path, priority)
                said.append(f"{place}/{printable(name)}: no row knew it: sent through the inbox to be validated")
        return said

    def _unknown(self, place: Place) -> list[tuple[Stamp, str]]:
        """Return the files in a place that no row names, oldest first."""
        folders = self._book.folders
        names = folders.payloads(place) - self._book.store.names(place)
        for name in [name for name in names if name != printable(name)]:
            # A row can only hold a name that is text; in the lines the way through the inbox sees to it.
            free = folders.free_name(place, printable(name), self._book.store.is_named)
            folders.disk.rename(folders.path(place, name), folders.path(place, free))
            names = names - {name} | {free}
        stamps = ((folders.stamp(folders.path(place, name)), name) for name in names)
        return sorted(
            ((stamp, name) for stamp, name in stamps if stamp is not None),
            key=lambda one: (one[0].mtime_ns, one[1]),
        )

    def _row(self, place: Place, name: str, stamp: Stamp, state: State, priority: Priority, digest: str) -> Job:
        now = self._book.now()
        return Job(
            id=new_id(now),
            file=original(printable(name)),
            state=state,
            priority=priority,
            place=place,
            name=name,
            seq=self._book.store.next_seq(),
            sha256=digest,
            stamp=stamp,
            samples=self._rows(place, name) if digest else 0,
            submitted_at=now,
        )

    def _rows(self, place: Place, name: str) -> int:
        with self._book.folders.path(place, name).open("rb") as file:
            return sum(1 for line in file if line.strip())

    def _at_cursor(self, job: Job) -> Job:
        """Return the job under the id that the ledger has a cursor for, if its content is that job's."""
        cursor = self._cursors.pop(job.sha256, None)
        if cursor is None:
            return job
        return msgspec.structs.replace(
            job, id=cursor.job, file=cursor.file, stats=cursor.stats, tally=Tally(progress=cursor.consumed)
        )

    def _failed(self, name: str, stamp: Stamp) -> Job:
        job = self._row("failed", name, stamp, "failed", "normal", "")
        try:
            report = _report.decode(self._book.folders.report_path(name).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            report = ErrorReport(job.id, job.file, "found in failed/ without a report", 0, [], None)
            self._book.folders.write_report(name, report)
        return msgspec.structs.replace(
            job,
            id=job.id if self._book.store.get(report.id) else report.id,
            file=report.file,
            last_error=report.reason,
            finished_at=job.submitted_at,
            tally=Tally(attempts=report.attempts),
        )
