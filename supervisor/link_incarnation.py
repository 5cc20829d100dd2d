"""The tree's end of a link: what is the same of an incarnation, whether a process child or a guest serves it.

To the tree such an incarnation is what a task's is. It takes letters out of the cell, a few ahead of the actor, and
sends them over the link; a letter that the actor has not taken in hand when the link ends goes back to the head of the
mailbox, so a restart keeps queued casts and never redelivers the one in hand. A wedged peer fills its window, then its
mailbox, and then its senders are told so by the mailbox's own policy.
"""

from __future__ import annotations

import math
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import anyio

from protocol.framing import FrameDecoder, FrameError
from supervisor import custody
from supervisor import link_protocol as wire
from supervisor.link_traffic import Traffic
from supervisor.liveness import Liveness
from supervisor.mailbox import Mailbox, Overflow, Phase
from supervisor.outbox import Outbox
from supervisor.reasons import Crash, Reason

if TYPE_CHECKING:
    from protocol.backend import TimerHandle
    from supervisor.incarnation import Keeper, Surroundings
    from supervisor.mailbox import Cell
    from supervisor.spec import ChildSpec

EXIT_GRACE = 2.0
"""Seconds that the far end has from its last frame, or the end of the link, until nothing of it is left."""


CHUNK = 1 << 16
"""Bytes that are read at once, at most."""
TURN = 0.001
"""Seconds for which the frames of one link are handled in a row."""
REST = 64
"""Chunks that are read after the end, at most: more than a socket holds, and no more than that can be of the dead."""


class LinkIncarnation(ABC):
    """One life of an actor at the far end of a link. What ends it, and how it is ended, is for subclasses to say."""

    def __init__(self, spec: ChildSpec, cell: Cell, number: int, keeper: Keeper, surroundings: Surroundings) -> None:
        self.number = number
        self.pid: int | None = None
        self.last_message: str | None = None
        self._spec = spec
        self._patience: float | Literal["infinity"] = 0.0 if spec.shutdown == "brutal_kill" else spec.shutdown
        self._cell = cell
        self._keeper = keeper
        self._around = surroundings
        self._outbox: Outbox | None = None
        self._traffic: Traffic | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._decoder = FrameDecoder(wire.MAX_FRAME)
        self._heard: deque[bytes | FrameError] = deque()
        """Received, and not handled yet."""
        self._is_deaf = False
        """It has sent what cannot be understood, and nothing more is heard."""
        self._acked = False
        self._stopping = False
        """The tree asked it to stop, and ends it when its time is up."""
        self._reason: Reason | None = None
        self._announced: Reason | None = None
        """What the actor itself said first of its end."""
        self._ended = False
        self._summary: Mapping[str, object] = {}
        self._limits: dict[str, TimerHandle] = {}
        self._liveness: Liveness | None = None
        if spec.liveness is not None:
            self._liveness = Liveness(cell.clock, spec.liveness, self._no_progress)

    @property
    def suspended(self) -> bool:
        return self._traffic is not None and self._traffic.suspended

    # ---------------------------------------------------------------- what the tree asks for

    @abstractmethod
    def start(self) -> None:
        """Begin. The ack, or the end with ``StartFailed``, comes through the keeper."""

    def stop(self, reason: Reason) -> None:
        """Ask the actor to stop. Before the ack it is ended at once."""
        if not self._acked:
            self.kill(reason)
        elif self._outbox is not None:
            self._stopping = True
            returns = self._cell.phase is Phase.RESTARTING
            self._outbox.put(wire.Stop(wire.sendable(reason), returns))

    def kill(self, reason: Reason) -> None:
        """End it without asking; it ends with ``reason`` unless it has one already."""
        if self._ended:
            return
        self._decide(reason)
        self._cut()

    def fail(self, reason: Reason) -> None:
        """Crash the actor with ``reason``."""
        if self._outbox is not None and self._acked:
            self._outbox.put(wire.Fail(wire.sendable(reason)))
        else:
            self.kill(reason)

    def where(self) -> str:
        """What the kernel says of the process: its state, what it sleeps on, which signals wait."""
        return "no process yet" if self.pid is None else custody.describe(self.pid)

    def summary(self) -> Mapping[str, object]:
        """What the actor said of itself, at most a second ago while it is alive."""
        return self._summary

    # ---------------------------------------------------------------- for subclasses

    @abstractmethod
    def _cut(self) -> None:
        """Let nothing be left of it, as soon as may be. The reason is known."""

    @abstractmethod
    def _no_progress(self, reason: Reason) -> None:
        """It has not beaten for too long."""

    def _open(self, link: socket.socket) -> Outbox:
        """Make the outgoing side of the link."""
        self._outbox = Outbox(link, overfull=lambda: self._cell.backend.call_soon(self._unread))
        return self._outbox

    def _begin_traffic(self, tasks: anyio.abc.TaskGroup) -> None:
        """Write what is to be sent; be ready for what comes."""
        assert self._outbox is not None  # _open has made it
        self._tasks = tasks
        self._traffic = Traffic(self._cell, self._around, self._outbox, tasks)
        tasks.start_soon(self._outbox.drain)

    def _close(self) -> None:
        """Send nothing more."""
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None

    def _decide(self, reason: Reason) -> None:
        """This is why it ends, unless that is known already."""
        if self._reason is None:
            self._reason = reason
            if self._traffic is not None:
                self._traffic.stop_feeding()
            if self._liveness is not None:
                self._liveness.stop()
            self._keeper.ending(self, reason)

    def _limit(self, what: str, seconds: float, passed: Callable[[], None]) -> None:
        """Call ``passed`` in so many real seconds, in place of an earlier limit of the same kind."""
        self._unlimit(what)
        self._limits[what] = self._cell.backend.call_later(seconds, passed)

    def _unlimit(self, what: str) -> None:
        if (earlier := self._limits.pop(what, None)) is not None:
            earlier.cancel()

    def _settle(self) -> None:
        """It is over: put back what the actor never had in hand, and settle everything else."""
        assert self._reason is not None
        if self._traffic is not None:
            self._traffic.end(self._reason)

    def _tell_end(self) -> None:
        """Nothing is left of it."""
        assert self._reason is not None
        self._ended = True
        for timer in self._limits.values():
            timer.cancel()
        self._keeper.ended(self, self._reason)

    def _unread(self) -> None:
        """So much waits to be read by the far end that no more can be kept for it."""
        self.kill(Crash("Unread", "it takes nothing of what is sent to it"))

    # ---------------------------------------------------------------- frames

    async def _read(self, link: socket.socket) -> None:
        """Handle what comes until the link ends, or is to be ended. Others get their turn, however much comes."""
        while True:
            await anyio.wait_readable(link)
            try:
                if not self._hear(link):
                    return
            except BlockingIOError:
                continue
            while not self._act(TURN):
                await self._cell.backend.checkpoint()
            if self._is_deaf:
                return

    def _read_rest(self, link: socket.socket) -> None:
        """Read what was said before the end: the notice of it may have overtaken that. The tasks have ended."""
        self._tasks = None
        if self._traffic is not None:
            self._traffic.hear_out()
        self._act(math.inf)
        try:
            for _ in range(REST):
                if not self._hear(link):
                    return
                self._act(math.inf)
        except BlockingIOError:
            return  # it is gone, but something that it had forked holds its end open

    def _hear(self, link: socket.socket) -> bool:
        """Receive what has come. False: it was the end. Raises ``BlockingIOError`` if there is nothing."""
        if self._is_deaf:
            return False
        try:
            data = link.recv(CHUNK)
        except ConnectionResetError:
            return False
        try:
            self._heard.extend(self._decoder.feed(data))
        except FrameError as error:
            self._heard.extend(error.before)
            self._heard.append(error)
        return bool(data)

    def _act(self, seconds: float) -> bool:
        """Handle what has been received, for so long at most. True: all of it."""
        end = time.monotonic() + seconds
        while self._heard:
            payload = self._heard.popleft()
            try:
                if isinstance(payload, FrameError):
                    raise payload
                self._handle(wire.read_to_daemon(payload))
            except (FrameError, wire.BadFrame) as error:
                self._is_deaf = True
                self._heard.clear()
                self.kill(Crash("ProtocolError", f"it sent what cannot be understood: {error}"))
            if time.monotonic() > end:
                return not self._heard
        return True

    def _handle(self, frame: wire.Frame) -> None:
        """Act on a frame. Raises ``BadFrame`` for one that may not come, or not now."""
        match frame:
            case wire.Acked(bound=bound, overflow=overflow):
                self._on_ack(bound, overflow)
            case wire.Beat(phase=phase, limit=limit):
                if self._liveness is not None:
                    self._liveness.beat(phase, limit)
            case wire.Ending(reason=reason):
                if self._announced is not None:
                    raise wire.BadFrame("a second end")  # each would give it time anew
                self._announced = reason
                self._decide(reason)
                assert self._traffic is not None  # made before the reader was
                self._traffic.refuse_all()
                if self._patience != "infinity" and not self._stopping:  # on_stop has yet to run
                    self._limit("exit", self._patience + EXIT_GRACE, self._cut)
            case wire.Worse(reason=reason):
                if self._reason is self._announced:
                    self._reason = reason
            case wire.Summary(values=values):
                self._summary = values
            case _:
                assert self._traffic is not None  # made before the reader was
                if isinstance(frame, wire.Taken):
                    self.last_message = frame.kind
                self._traffic.handle(frame)

    def _on_ack(self, bound: int, overflow: Overflow) -> None:
        if self._acked:
            raise wire.BadFrame("a second ack")
        if self._reason is not None or self._traffic is None:
            return
        self._acked = True
        self._unlimit("start")
        self._configure(Mailbox(bound, overflow))
        self._keeper.acked(self)
        if self._liveness is not None:
            self._liveness.start()
        if self._tasks is not None:
            self._tasks.start_soon(self._traffic.feed)

    def _configure(self, mailbox: Mailbox) -> None:
        """Take the actor's own bound and policy."""
        self._cell.configure(mailbox)
