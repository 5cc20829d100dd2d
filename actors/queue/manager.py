"""QueueManager: owner of the jobs, their order, their attempts, their history, and the gate.

It starts by reconciling HEAD's ledger, the folders and SQLite, and then serves at four desks: the trainer's, the
inbox's, Consolidator's, and the people's. It calls nobody; to those who started after it (TrainerActor, InboxWatcher)
it only casts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from actors.queue.book import Book
from actors.queue.folders import Folders
from actors.queue.gate import Gate
from actors.queue.inbox_desk import InboxDesk
from actors.queue.job import Place
from actors.queue.lease_desk import LeaseDesk
from actors.queue.ledger import standing
from actors.queue.office import TRAINER
from actors.queue.people_desk import PeopleDesk
from actors.queue.recovery import Recovery, boot_id
from actors.queue.retention import expire
from actors.queue.store import Damaged, Store
from actors.queue.trainer_desk import TrainerDesk
from protocol.messages.common import PRIORITIES, Done, Message, Trouble
from protocol.messages.queue import DiskGate, NoWork, Stopping
from protocol.messages.trainer import ConfigChanged
from supervisor import Reason, Shutdown, on

NAME = "QueueManager"

EDITABLE: tuple[Place, ...] = (*PRIORITIES, "failed")
"""The folders in which people may move, add and delete files."""


class _LookAround(Message, frozen=True):
    """Time to see what people did to the folders, and what has been kept for long enough."""


class QueueManager(TrainerDesk, InboxDesk, LeaseDesk, PeopleDesk):
    """The queue of one home. Raises at start what :class:`Store` raises, except that damage is set aside."""

    async def on_start(self) -> None:
        fresh = not self.board.queue_ready
        said = await self.look(self._open, fresh)
        held = await self.held_job()
        if held is None:
            self.board.held = None
        else:  # only this actor is new, and its trainer works on
            self.phase = "training" if held.tally.live_boot else "loading"
        self.context.monitor(self.context.ref(TRAINER))
        self.context.every(self.settings.current.inbox.rescan, _LookAround())
        self.announce()
        self.board.queue_ready = True
        for text in said:
            self.context.publish("queue", {"event": "recovered", "reason": text})
        await self.offer()

    async def on_stop(self, reason: Reason) -> None:
        await self.look(self._close, isinstance(reason, Shutdown))

    def summary(self) -> Mapping[str, object]:
        counts = self.board.queue
        return {
            "waiting": counts.waiting,
            "processing": counts.processing,
            "held": self.held.job if self.held else None,
            "gate_open": self.gate.view.open,
            "claim_waits": self.claim is not None and not self.claim.done,
        }

    @on(DiskGate)
    async def _disk_gate(self, message: DiskGate) -> None:
        self.gate.disk(message.reason)
        self.announce()
        await self.offer()

    @on(Stopping)
    async def _stopping(self, message: Stopping) -> Done:
        self.gate.stop()
        self.turn_away(NoWork(reason="stopping"))
        await self.do(self.book.blame_nobody)
        return Done()

    @on(ConfigChanged)
    async def _config_changed(self, message: ConfigChanged) -> None:
        """Every setting is read where it is used."""

    @on(_LookAround)
    async def _look_around(self, message: _LookAround) -> None:
        for text in await self.do(self._tidy):
            self.context.publish("queue", {"event": "recovered", "reason": text})
        await self.offer()

    # ------------------------------------------------------------ in the worker thread

    def _open(self, fresh: bool) -> list[str]:
        said: list[str] = []
        try:
            store = Store(self.home.database, self.disk)
        except Damaged as error:
            said.append(self._set_aside(error))
            store = Store(self.home.database, self.disk)
        self.book = Book(store, Folders(self.home, self.disk), self.context.clock.now)
        self.gate = Gate(store)
        self.gate.disk(self.board.gate.disk)
        self.gate.device(self.board.gate.device)
        if self.board.stopping is not None:
            self.gate.stop()
        recovery = Recovery(self.book, self.home, boot_id())
        found = standing(self.home)
        self.seen_checkpoint = found.checkpoint
        if fresh or store.created:
            said += self.gate.begin_run()
            recovery.at_start(found)
            expire(self.book, self.home, self.settings.current.queue.keep_done)
        else:
            recovery.after_restart_of_actor()
        return said + recovery.said

    def _set_aside(self, error: Damaged) -> str:
        """Keep a damaged database for whoever wants to look into it; the queue is rebuilt from folders and ledger."""
        date = f"{self.context.clock.now():%Y%m%dT%H%M%S}"
        aside = self.home.database.with_name(f"{self.home.database.name}.damaged-{date}")
        for ending in ("-shm", "-wal", ""):  # the log first: beside a new database it would be taken for its own
            part = Path(f"{self.home.database}{ending}")
            if part.exists():
                self.disk.rename_over(part, Path(f"{aside}{ending}"))
        text = f"{error}; it was kept as {aside.name}, and the queue was rebuilt from the folders and the ledger"
        self.board.troubles[NAME] = Trouble(text, "stokehold queue list shows what was found")
        return text

    def _tidy(self) -> list[str]:
        recovery = Recovery(self.book, self.home, boot_id())
        # A folder's time moves with each entry that comes or goes, so a quiet million is not read every minute.
        times = tuple(self.book.folders.folder(place).stat().st_mtime_ns for place in EDITABLE)
        if times != self.folder_times or self.book.store.in_state("checking"):
            recovery.obey_hands()
            self.folder_times = times
        expire(self.book, self.home, self.settings.current.queue.keep_done)
        return recovery.said

    def _close(self, asked: bool) -> None:
        """Let go of the database. A stop that was asked for is nothing that a file could have caused."""
        try:
            if asked:
                self.book.blame_nobody()
            self.book.store.close()
        except sqlite3.OperationalError as error:  # the disk is full: the log is folded in at the next start
            self.board.troubles[NAME] = Trouble(f"{self.home.database}: {error}", "stokehold doctor")
