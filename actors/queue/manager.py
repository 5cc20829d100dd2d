"""QueueManager: owner of the jobs, their order, their attempts, their history, and the gate.

It starts by reconciling HEAD's ledger, the folders and SQLite, and then serves at four desks: the trainer's, the
inbox's, Consolidator's, and the people's. It calls nobody; to those who started after it (TrainerActor, InboxWatcher)
it only casts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from anyio import to_thread

from actors.board import Board
from actors.queue.book import Book
from actors.queue.folders import Folders
from actors.queue.gate import Gate
from actors.queue.inbox_desk import InboxDesk
from actors.queue.job import Place
from actors.queue.lease_desk import LeaseDesk
from actors.queue.ledger import standing
from actors.queue.office import NAME, RETRY, TRAINER, TryAgain
from actors.queue.people_desk import PeopleDesk
from actors.queue.recovery import Recovery, boot_id
from actors.queue.retention import expire
from actors.queue.store import Damaged, Store
from actors.queue.trainer_desk import TrainerDesk
from actors.queue.unwritable import Unwritable, why_unwritable
from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import PRIORITIES, Done, Message, Trouble
from protocol.messages.queue import DiskGate, NoWork, Stopping
from protocol.messages.trainer import ConfigChanged
from protocol.records import NewerFormat
from supervisor import Disk, Reason, Shutdown, Timer, on

EDITABLE: tuple[Place, ...] = (*PRIORITIES, "failed")
"""The folders in which people may move, add and delete files."""


class _LookAround(Message, frozen=True):
    """Time to see what people did to the folders, and what has been kept for long enough."""


class QueueManager(TrainerDesk, InboxDesk, LeaseDesk, PeopleDesk):
    """The queue of one home.

    Raises at start what :class:`Store` raises, except that a daemon that starts sets damage aside.
    """

    def __init__(self, home: Home, store: ConfigStore, disk: Disk, board: Board) -> None:
        super().__init__(home, store, disk, board)
        self._damage: Trouble | None = None
        """What was found to be damaged at the start, and stays to be said."""
        self._rounds: Timer
        """Looks around every ``inbox.rescan`` seconds."""
        self._folder_times: tuple[int, ...] = ()
        """When the folders that people may edit had last changed before they were looked at."""

    async def on_start(self) -> None:
        said = await to_thread.run_sync(self._open, not self.board.queue_ready)
        held = await self.held_job()
        if held is None:
            self.board.held = None
        else:  # only this actor is new, and its trainer works on
            self.phase = "training" if held.tally.live_boot else "loading"
        self.context.monitor(self.context.ref(TRAINER))
        self._rounds = self.context.every(self.settings.current.inbox.rescan, _LookAround())
        self._say_trouble()
        self.announce()
        self.board.queue_ready = True
        self._say(said)
        await self.offer()

    async def on_stop(self, reason: Reason) -> None:
        await to_thread.run_sync(self._close, isinstance(reason, Shutdown))

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
        """All other settings are read where they are used."""
        self._rounds.cancel()
        self._rounds = self.context.every(self.settings.current.inbox.rescan, _LookAround())

    @on(TryAgain)
    async def _try_again(self, message: TryAgain) -> None:
        try:
            await self.do(self._write_again)
        except Unwritable:
            self.context.after(RETRY, TryAgain())
            return
        self.gate.storage(None)
        self._say_trouble()
        self.announce()
        await self.offer()

    @on(_LookAround)
    async def _look_around(self, message: _LookAround) -> None:
        with suppress(Unwritable):
            self._say(await self.do(self._tidy))
        await self.offer()

    def _say(self, texts: list[str]) -> None:
        for text in texts:
            self.context.publish("queue", {"event": "recovered", "reason": text})

    def _say_trouble(self) -> None:
        if self._damage is None:
            self.board.troubles.pop(NAME, None)
        else:
            self.board.troubles[NAME] = self._damage

    # ------------------------------------------------------------ in the worker thread

    def _open(self, fresh: bool) -> list[str]:
        try:
            with ExitStack() as undo:
                store = undo.enter_context(closing(self._open_store(fresh)))
                said = self._recover(store, fresh)
                undo.pop_all()  # it recovered, and stays open
                return said
        except (OSError, sqlite3.Error, Damaged, NewerFormat) as error:
            self.board.troubles[NAME] = _cannot_start(error)
            raise

    def _open_store(self, fresh: bool) -> Store:
        try:
            store = Store(self.home.database, self.disk)
        except Damaged as error:
            if not fresh:
                raise
            self._set_aside(error)
            store = Store(self.home.database, self.disk)
        if store.created and not fresh:
            # A rebuilt queue knows the running file by another id, and would have it trained twice.
            store.close()
            raise Damaged(f"{self.home.database} is gone")
        return store

    def _recover(self, store: Store, fresh: bool) -> list[str]:
        self.book = Book(store, Folders(self.home, self.disk), self.context.clock.now)
        self.gate = Gate(store)
        self.gate.disk(self.board.gate.disk)
        self.gate.device(self.board.gate.device)
        if self.board.stopping is not None:
            self.gate.stop()
        recovery = Recovery(self.book, self.home, boot_id())
        found = standing(self.home)
        self.seen_checkpoint = found.checkpoint
        if not fresh:
            recovery.after_restart_of_actor()
            return recovery.said
        stale = self.gate.begin_run()
        recovery.at_start(found)
        expire(self.book, self.home, self.settings.current.queue.keep_done)
        return stale + recovery.said

    def _set_aside(self, error: Damaged) -> None:
        """Keep a damaged database for whoever wants to look into it; the queue is rebuilt from folders and ledger."""
        date = f"{self.context.clock.now():%Y%m%dT%H%M%S}"
        aside = self.home.database.with_name(f"{self.home.database.name}.damaged-{date}")
        for ending in ("-shm", "-wal", ""):  # the log first: beside a new database it would be taken for its own
            part = Path(f"{self.home.database}{ending}")
            if part.exists():
                self.disk.rename_over(part, Path(f"{aside}{ending}"))
        text = f"{error}; it was kept as {aside.name}, and the queue was rebuilt from the folders and the ledger"
        self._damage = Trouble(text, "stokehold queue list shows what was found")

    def _tidy(self) -> list[str]:
        recovery = Recovery(self.book, self.home, boot_id())
        for place in EDITABLE:
            self.book.folders.make(place)
        # A folder's time moves with each entry that comes or goes, so a quiet million is not read every minute.
        times = tuple(self.book.folders.folder(place).stat().st_mtime_ns for place in EDITABLE)
        if times != self._folder_times or self.book.store.in_state("checking"):
            recovery.obey_hands()
            recovery.clear_failed()
            self._folder_times = times
        expire(self.book, self.home, self.settings.current.queue.keep_done)
        return recovery.said

    def _write_again(self) -> None:
        """Find out whether everything can be written again."""
        self.gate.write_again()
        self.book.folders.probe()

    def _close(self, asked: bool) -> None:
        """Let go of the database. A stop that was asked for is nothing that a file could have caused."""
        try:
            if asked:
                self.book.blame_nobody()
            self.book.store.close()
        except (OSError, sqlite3.OperationalError) as error:  # the log is folded in at the next start
            self.board.troubles[NAME] = Trouble(why_unwritable(error) or str(error), "stokehold doctor")


def _cannot_start(error: OSError | sqlite3.Error | Damaged | NewerFormat) -> Trouble:
    if isinstance(error, Damaged):
        return Trouble(f"the queue's database is damaged: {error}", "stokehold stop, then run: the start rebuilds it")
    if isinstance(error, NewerFormat):
        return Trouble(str(error), "stokehold stop")
    return Trouble(why_unwritable(error) or str(error), "mend that, and it goes on by itself; stokehold doctor")
