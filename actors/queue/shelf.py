"""Rows and payloads, moved together: the primitives under every change of the queue.

Each change is one commit that says where the payload belongs and where it comes from (``origin``), and then one
rename. If the process dies between the two, recovery finds the payload at its origin and does the rename. So a
payload is never without a row, and a row always finds its payload.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from actors.queue.folders import Folders
from actors.queue.job import Job, Place
from actors.queue.store import Store
from protocol.messages.queue import HistoryEntry

_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)
"""What the kernel says of a file in a folder that belongs to somebody else, or cannot be written."""


@dataclass(frozen=True, slots=True)
class News:
    """Something that happened to a job, for those who listen."""

    kind: str
    """One word: ``accepted``, ``claimed``, ``committed``, ``failed``..."""
    job: Job
    text: str = ""
    entry: HistoryEntry | None = None
    """Set if the job is over."""


class Shelf:
    """The rows and the payloads of one home. Nothing here waits or knows of actors; one thread at a time uses it."""

    def __init__(self, store: Store, folders: Folders, now: Callable[[], datetime]) -> None:
        self.store = store
        self.folders = folders
        self.now = now
        self.news: list[News] = []
        """What happened since somebody last emptied it."""
        self.owed: deque[tuple[Job, Path]] = deque()
        """Moves that rows announce and that could not be made, each with where the payload still lies."""
        self._unsynced: dict[Path, None] = {}
        """Folders in which moves were made that are not durable yet, in order."""

    def path(self, job: Job) -> Path:
        """Return where the row says that the payload lies."""
        return self.folders.path(job.place, job.name)

    def save(self, job: Job) -> Job:
        """Commit a row whose payload stays where it is."""
        with self.store.transaction():
            self.store.put(job)
        return job

    def send(self, job: Job, place: Place, kind: str | None = None, text: str = "") -> Job:
        """Commit the row with its payload in another place, tell of it, then move the payload there."""
        source = self.path(job)
        after = self.save(self.headed(job, place))
        if kind is not None:
            self.tell(kind, after, text)
        return self.carry(after, source)

    def headed(self, job: Job, place: Place, reserved: set[tuple[Place, str]] | None = None) -> Job:
        """Return the row that announces a move; ``reserved`` are the names given away in the same commit."""
        given = reserved if reserved is not None else set()

        def taken(at: Place, name: str) -> bool:
            return (at, name) in given or self.store.is_named(at, name)

        name = self.folders.free_name(place, job.file, taken)
        given.add((place, name))
        return msgspec.structs.replace(job, place=place, name=name, origin=self.folders.relative(self.path(job)))

    def carry(self, job: Job, source: Path) -> Job:
        """Move the payload to where its row says that it belongs. If it cannot be moved now, that is owed.

        Raises:
            OSError, sqlite3.Error: the disk is full, or the like.
        """
        try:
            return self.transfer(job, source)
        except (OSError, sqlite3.Error):
            self.owed.append((job, source))
            raise

    def carry_all(self, moves: list[tuple[Job, Path]]) -> list[Job]:
        """Move the payloads of rows that were committed together."""
        self.owed += moves
        return self.pay()

    def pay(self) -> list[Job]:
        """Make the moves that are owed, in order, after which rows and payloads agree. Comes before anything else."""
        paid = []
        while self.owed:
            paid.append(self.transfer(*self.owed[0], sync=False))
            self.owed.popleft()
        self.sync()
        return paid

    def sync(self) -> None:
        """Make durable what was moved, each folder once. Comes before any row is changed again: a row knows only the
        last place that its payload came from."""
        while self._unsynced:
            folder = next(iter(self._unsynced))
            with suppress(FileNotFoundError):  # taken away with all that was moved there
                self.folders.disk.sync_folder(folder)
            del self._unsynced[folder]

    def take_in(self, job: Job, source: Path) -> OSError | None:
        """Move a payload out of the inbox; :meth:`sync` is to follow. If the inbox will not give it up, take its row
        back and say why."""
        try:
            self.transfer(job, source, sync=False)
        except OSError as error:
            if error.errno not in _NOT_OURS or self.folders.stamp(source) is None:
                raise
            if self.folders.is_copy(self.path(job), source):
                self.folders.disk.unlink(self.path(job))
            self.forget(job)
            return error
        return None

    def forget(self, job: Job) -> None:
        """Delete the row of a job of which nothing is left to keep; its history stays."""
        with self.store.transaction():
            self.store.forget(job.id)

    def transfer(self, job: Job, source: Path, *, sync: bool = True) -> Job:
        """Rename the payload; another name if somebody just took that one. One that is gone is not missed here."""
        while True:
            target = self.path(job)
            try:
                self.folders.disk.rename(source, target, sync=sync)
                break
            except FileNotFoundError:
                if not os.path.lexists(source):
                    return job
                self.folders.make(job.place)
            except FileExistsError:
                if self.folders.is_copy(target, source):  # this move was begun before, and died before its end
                    self.folders.disk.unlink(source)
                    break
                name = self.folders.free_name(job.place, job.file, self.store.is_named)
                job = self.save(msgspec.structs.replace(job, name=name))
        if not sync:  # the new name first: a crash may leave both names, never none
            self._unsynced |= dict.fromkeys((target.parent, source.parent))
        stamp = self.folders.stamp(target)
        if stamp is not None and stamp != job.stamp:  # copied from another file system: its time is a new one
            job = self.save(msgspec.structs.replace(job, stamp=stamp))
        return job

    def tell(self, kind: str, job: Job, text: str = "", entry: HistoryEntry | None = None) -> None:
        """Add to the news."""
        self.news.append(News(kind, job, text, entry))
