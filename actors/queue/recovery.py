"""Reconciliation at start: HEAD's ledger, the folders and SQLite are made to agree, and what was done is said.

In this order: half-done renames are finished; the ledger is believed; what a dead daemon held goes back to its
line, ahead of it; edits by hand are obeyed; leftovers are removed. Running it twice changes nothing, and it may die
anywhere: each step is one that the next run understands.
"""

from __future__ import annotations

from pathlib import Path

from actors.queue import attempts
from actors.queue.adoption import Adoption
from actors.queue.book import Book
from actors.queue.job import PLACES, Job, Place, Stamp
from actors.queue.ledger import Standing
from actors.queue.settlement import name_versions, settle
from protocol.home import Home
from protocol.messages.common import PRIORITIES

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the kernel's id of this boot: what happened in another one may have been a power cut."""
    return BOOT_ID.read_text().strip()


class Recovery:
    """One reconciliation of one home."""

    def __init__(self, book: Book, home: Home, boot: str) -> None:
        self._book = book
        self._home = home
        self._boot = boot
        self.said: list[str] = []
        """What was found and done, in words, in order."""
        self._compared: dict[Place, tuple[set[str], set[str]]] = {}

    def after_restart_of_actor(self) -> None:
        """Only QueueManager is new: the trainer may be at work, so what it holds is left alone."""
        self.finish_moves()

    def at_start(self, standing: Standing) -> None:
        """The daemon is new: nobody holds anything."""
        self.finish_moves()
        adoption = Adoption(self._book, standing.ledger, rebuilding=self._book.store.created)
        self._say(*adoption.processing())
        if standing.ledger is None:
            self._say(f"what was trained cannot be known yet: {standing.trouble}")
        else:
            self._say(*settle(self._book, standing.ledger))
            name_versions(self._book, self._home)
        self._release_processing()
        self._say(*adoption.ended())
        self.obey_hands(adoption)
        self.clear_failed()
        self._remove_leftovers()
        if self._book.store.created:
            self._book.store.rebuilt()

    def finish_moves(self) -> None:
        """Do the renames that were announced by a row and not done; bury what was cancelled."""
        book = self._book
        for place in PLACES:
            book.folders.make(place)
        for job in book.store.in_state("cancelled"):
            book.bury(job)
        self._finish_copies()
        for place in PLACES:
            for job in self._missing(place):
                source = self._left_at_origin(job)
                if source is None:
                    continue
                if not source.is_relative_to(self._home.inbox):
                    book.carry(job, source)
                elif (refused := book.take_in(job, source)) is not None:
                    self._say(f"{job.file}: it cannot be taken out of the inbox: {refused.strerror}")
                    continue
                self._say(f"{job.file} ({job.id}): moved to {place}/, as its row says")

    def _finish_copies(self) -> None:
        """Remove what was copied to another file system and, since the process died, not removed there.

        In a home of one file system there is nothing to look for, and nothing is looked at.
        """
        folders = self._book.folders
        if not folders.are_apart():
            return
        for place, name, origin in self._book.store.origins():
            source = folders.absolute(origin)
            if folders.stamp(source) is None or self._is_named(source):
                continue
            if folders.is_copy(folders.path(place, name), source):
                folders.disk.unlink(source)
                self._say(f"{origin}: it was moved to {place}/{name}, and is removed here")

    def obey_hands(self, adoption: Adoption | None = None) -> None:
        """Obey what people did to waiting files: moved is re-prioritised, deleted is cancelled, added is a new job."""
        book = self._book
        gone = {job.id: job for place in PRIORITIES for job in self._missing(place)}
        by_stamp: dict[Stamp, list[Job]] = {}
        for job in [*gone.values(), *self._missing("failed")]:
            by_stamp.setdefault(job.stamp, []).append(job)
        added: list[tuple[Place, str]] = []
        for place in PRIORITIES:
            for name in self._compare(place)[1]:
                path = book.folders.path(place, name)
                stamp = book.folders.stamp(path)
                alike = by_stamp.get(stamp, []) if stamp is not None else []
                # Archives unpack files of equal size and time: only the content tells whether it is the same one.
                digest = book.folders.sha256(path) if alike else ""
                moved = next((one for one in alike if one.sha256 == digest), None)
                if moved is not None:
                    alike.remove(moved)
                    gone.pop(moved.id, None)
                    book.moved_by_hand(moved, place, name)
                    self._say(f"{moved.file} ({moved.id}): moved to {place}/ by hand")
                else:
                    added.append((place, name))
        for job in gone.values():
            book.end(job, "its file was deleted by hand")
            self._say(f"{job.file} ({job.id}): its file was deleted by hand: cancelled")
        for job in self._missing("inbox"):
            book.end(job, "its file was deleted by hand")
            self._say(f"{job.file} ({job.id}): its file was deleted from the inbox: cancelled")
        self._say(*(adoption or Adoption(book, None, rebuilding=False)).waiting(added))

    def _say(self, *texts: str) -> None:
        """Note what was done; what was compared before is no longer so."""
        if texts:
            self.said += texts
            self._compared.clear()

    def _compare(self, place: Place) -> tuple[set[str], set[str]]:
        """Return the names that only rows know, and those that only the folder knows.

        At a million rows this is where the time goes, so a folder is read again only after something was changed.
        """
        if place not in self._compared:
            book = self._book
            rows = book.store.names(place)
            if place == "inbox":  # the watcher's folder may hold many files, and few are ours
                there = {name for name in rows if book.folders.stamp(book.folders.path(place, name)) is not None}
            else:
                there = book.folders.payloads(place)
            self._compared[place] = (rows - there, there - rows)
        return self._compared[place]

    def _missing(self, place: Place) -> list[Job]:
        """Return the jobs whose payload is not where it belongs."""
        jobs = (self._book.store.at(place, name) for name in sorted(self._compare(place)[0]))
        return [job for job in jobs if job is not None and job.state != "cancelled"]

    def _left_at_origin(self, job: Job) -> Path | None:
        """Return the payload's former path if it still lies there and nobody else's row claims that path."""
        if job.origin is None:
            return None
        path = self._book.folders.absolute(job.origin)
        return path if self._book.folders.stamp(path) == job.stamp and not self._is_named(path) else None

    def _is_named(self, path: Path) -> bool:
        """Say whether a row claims the payload at this path."""
        book = self._book
        return any(
            path.parent == book.folders.folder(place) and book.store.is_named(place, path.name) for place in PLACES
        )

    def _release_processing(self) -> None:
        """What the dead daemon held goes back to its line, ahead of it; the third time in a row it is suspected
        poison."""
        book = self._book
        for job in book.store.in_state("trained") + book.store.in_state("processing"):
            if book.folders.stamp(book.path(job)) is None:
                book.park(job, "its file was gone from processing/, where only the daemon may touch it")
                self._say(f"{job.file} ({job.id}): gone from processing/: failed")
                continue
            tally, verdict = attempts.daemon_vanished(job.tally, self._boot)
            counted = book.with_tally(job, tally)
            if verdict == "park":
                book.park(
                    counted, "suspected poison: the daemon vanished three times in a row while it trained this file"
                )
                self._say(f"{job.file} ({job.id}): suspected poison: parked in failed/")
            else:
                book.back_to_line(counted, why="the daemon that held it is gone")
                self._say(f"{job.file} ({job.id}): back to {job.priority}/, ahead of it")

    def clear_failed(self) -> None:
        """Remove error reports whose file never came, and rows of which nothing is left in ``failed/``."""
        book = self._book
        reports = book.folders.reports()
        for job in self._missing("failed"):
            if job.name not in reports:
                book.forget(job)
                self._say(f"{job.file} ({job.id}): deleted from failed/ by hand: forgotten")
        for name in reports - book.store.names("failed"):
            if book.folders.stamp(book.folders.path("failed", name)) is None:
                book.folders.disk.unlink(book.folders.report_path(name), missing_ok=True)
                self._say(f"failed/{name}: a report without its file was removed")

    def _remove_leftovers(self) -> None:
        """Forget what was deleted from ``done/`` by hand; remove what a dead process was writing."""
        book = self._book
        for job in self._missing("done"):
            book.forget(job)
        for path in [path for place in PLACES if place != "inbox" for path in book.folders.unfinished(place)]:
            book.folders.disk.unlink(path, missing_ok=True)
