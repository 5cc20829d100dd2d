"""SignalHandler: what a signal, a file named ``.stop``, a stop command and a reload mean.

The binary receives the signals and keeps its handlers until the process ends; here is only the policy for the first
one. The second SIGTERM or SIGINT, and the third, never get here: the binary acts on them without the help of a tree.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Final

from actors.board import Board
from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import Done, Message, Trouble
from protocol.messages.queue import StopAfterFile, Stopping
from protocol.messages.system import GotSignal, ReloadConfig, ReloadResult, Stop
from protocol.messages.trainer import ConfigChanged
from supervisor import Actor, CallFailed, Reason, Refused, on
from supervisor.durable import Disk

LOOK: Final = 1.0
"""Seconds between two looks for ``.stop``."""

FLUSH: Final = 0.1
"""Seconds that the answer to ``stop --now`` is given to leave the process."""

NOTED: Final = 1.0
"""Seconds that ``stop --now`` gives the queue to note that the end is wanted."""

EXIT_AT_ONCE: Final = 128 + signal.SIGTERM

NAME = "SignalHandler"
QUEUE = "QueueManager"

CONFIGURED: Final = ("DiskMonitor", "QueueManager", "TrainerActor", "InboxWatcher", "Consolidator")
"""Who takes ``ConfigChanged``. The others read the store when they need a value."""


Signals = AsyncIterator[int]
"""The numbers of the signals that the binary received. It outlives the tree, so none is lost in a restart."""


class _Look(Message, frozen=True):
    """Time to look for ``.stop``, and whether the last file is through."""


class _EndNow(Message, frozen=True):
    """The answer has had its time to leave."""


class SignalHandler(Actor):
    """Ends the daemon gently, after the running file, or at once; and has the configuration read again.

    A stop request is an event of one run and never survives into the next: a ``.stop`` that is older than this
    daemon's lock is removed and reported, and one that is obeyed is removed first.
    """

    def __init__(self, home: Home, store: ConfigStore, board: Board, signals: Signals | None) -> None:
        """``signals`` are the binary's; None in a tree embedded in another program, whose signals are its own."""
        self._home = home
        self._store = store
        self._board = board
        self._signals = signals
        self._disk = Disk()

    async def on_start(self) -> None:
        self._look_for_stop_file()
        self.context.every(LOOK, _Look())
        if self._signals is not None:
            self.context.spawn(self._receive, self._signals, name="signals")

    async def on_stop(self, reason: Reason) -> None:
        self._board.troubles.pop(NAME, None)

    def summary(self) -> Mapping[str, object]:
        return {"stopping": self._board.stopping, "revision": self._store.revision}

    async def _receive(self, signals: Signals) -> None:
        async for number in signals:
            self.context.self_ref.cast(GotSignal(number))

    @on(GotSignal)
    async def _got_signal(self, message: GotSignal) -> None:
        if message.number in (signal.SIGTERM, signal.SIGINT):
            self._stop_gently(signal.Signals(message.number).name)
        elif message.number == signal.SIGHUP:
            self._reload()

    @on(Stop)
    async def _stop(self, message: Stop) -> Done:
        match message.mode:
            case "gently":
                self._stop_gently("stokehold stop")
            case "after_file":
                await self._stop_after_file()
            case "now":
                self._board.stopping = "stokehold stop --now"
                with suppress(CallFailed):  # a queue that does not answer must not keep anyone from an end at once
                    await self.context.ref(QUEUE).call(Stopping(), timeout=NOTED)
                self.context.after(FLUSH, _EndNow())
        return Done()

    @on(_EndNow)
    async def _end_now(self, message: _EndNow) -> None:
        if self._signals is None:
            self.context.request_shutdown("stokehold stop --now", EXIT_AT_ONCE)
            return
        signal.raise_signal(signal.SIGTERM)  # the way of a second signal, with its guarantees and its exit code
        signal.raise_signal(signal.SIGTERM)

    @on(ReloadConfig)
    async def _reload_config(self, message: ReloadConfig) -> ReloadResult:
        return self._reload()

    @on(_Look)
    async def _look(self, message: _Look) -> None:
        self._look_for_stop_file()
        gate, board = self._board.gate, self._board  # QueueManager's word decides: a resume takes the request back
        # What was interrupted by a pause will not go on by itself: there is nothing to wait for.
        if gate.stop_after_file and board.held is None and (board.queue.processing == 0 or gate.paused):
            self._stop_gently("stokehold stop --after-file")

    def _stop_gently(self, why: str) -> None:
        self._board.stopping = why
        self.context.introspection.resume_all()  # whoever is still needed for the end must hear what is said to it
        with suppress(CallFailed):
            self.context.ref(QUEUE).cast(Stopping())
        self.context.publish("state", {"event": "stopping", "reason": why})
        self.context.request_shutdown(why)

    async def _stop_after_file(self) -> None:
        try:
            await self.context.ref(QUEUE).call(StopAfterFile())
        except CallFailed as error:
            raise Refused(f"the queue did not take the request: {error}") from error

    def _look_for_stop_file(self) -> None:
        """Obey ``.stop`` if it was put there since this daemon took its lock; remove it in any case."""
        path = self._home.stop_file
        try:
            asked_ns = path.lstat().st_ctime_ns
        except FileNotFoundError:
            return
        stale = asked_ns < self._locked_ns()
        try:
            self._disk.unlink(path, missing_ok=True)
        except OSError as error:
            trouble = Trouble(f"{path} cannot be removed: {error.strerror}", f"rm -r {path}")
            if self._board.troubles.get(NAME) == trouble:
                return  # said and, if it had to be, obeyed at an earlier look
            self._board.troubles[NAME] = trouble
        if stale:
            self._report_stale()
        else:
            self._stop_gently("the file .stop")

    def _report_stale(self) -> None:
        text = "a stop request from before this daemon started was removed (.stop); it was not obeyed"
        self._board.troubles.setdefault(NAME, Trouble(text))
        self.context.publish("state", {"event": "stale_stop_removed", "level": "warning", "reason": text})

    def _locked_ns(self) -> int:
        """Return when this daemon took its lock, by the clock of the file system that ``.stop`` lies on too."""
        with suppress(FileNotFoundError):
            return self._home.lock.stat().st_mtime_ns
        return 0

    def _reload(self) -> ReloadResult:
        result = self._store.reload()
        self.context.publish(
            "state",
            {
                "event": "config_reloaded" if result.applied else "config_refused",
                "level": "info" if result.applied else "warning",
                "revision": result.revision,
                "changed": result.changed,
                "standing_in_the_way": result.standing_in_the_way,
                "reason": result.reason,
            },
        )
        if not result.applied:
            self._board.troubles[NAME] = _not_reloaded(result)
            return result
        self._board.troubles.pop(NAME, None)
        changed = ConfigChanged(self._store.current, self._store.revision)
        for name in CONFIGURED:
            with suppress(CallFailed):  # who is not up reads the store when it starts
                self.context.ref(name).cast(changed)
        return result


def _not_reloaded(result: ReloadResult) -> Trouble:
    keys = ", ".join(result.standing_in_the_way)
    why = f"{result.reason}: {keys}" if keys else result.reason
    remedy = "put them back, or: stokehold stop, then run" if keys else "stokehold config check"
    return Trouble(f"the configuration was not reloaded: {why}", remedy)
