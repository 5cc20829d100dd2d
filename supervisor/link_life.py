"""The actor's end of a link: one life of one actor, in whatever process, and what its supervisor would be told of it.

The actor runs in the very same :class:`~supervisor.task_child.TaskIncarnation` as one that shares the tree's loop, so
its semantics are the same; only its surroundings are others: what belongs to the tree goes over the link.
"""

from __future__ import annotations

import builtins
import socket
import time
from collections.abc import Callable, Mapping
from typing import Literal

import anyio

from protocol.framing import FrameDecoder
from protocol.messages.common import Message
from supervisor import link_protocol as wire
from supervisor.actor import Actor
from supervisor.incarnation import Incarnation
from supervisor.link_child import Daemon, OwnCell
from supervisor.mailbox import Phase
from supervisor.monitor import Inject, Resume, Suspend, Trace
from supervisor.outbox import Outbox
from supervisor.reasons import Killed, Reason
from supervisor.spec import ChildSpec
from supervisor.task_child import TaskIncarnation

SUMMARY_EVERY = 1.0
"""Seconds between two reports of what the actor says of itself."""
BEAT_EVERY = 0.05
"""Beats that follow each other faster than this, in seconds, and in the same phase, are not all sent."""
FLUSH_LIMIT = 2.0
"""Seconds that the last frames have to leave."""


class Incarnate(TaskIncarnation):
    """A task's incarnation whose liveness is measured at the tree's end, in whatever state this loop is."""

    __slots__ = ("_beaten", "_beaten_in", "_outbox")

    def __init__(self, spec: ChildSpec, cell: OwnCell, number: int, keeper: LinkLife, daemon: Daemon) -> None:
        super().__init__(spec, cell, number, keeper, daemon)
        self._outbox = daemon.outbox
        self._beaten = 0.0
        self._beaten_in: tuple[str, float | None] = ("", None)

    def beat(self, phase: str, limit: float | None) -> None:
        now = time.monotonic()
        if now - self._beaten >= BEAT_EVERY or self._beaten_in != (phase, limit):
            self._beaten, self._beaten_in = now, (phase, limit)
            self._outbox.put(wire.Beat(phase, limit))


class LinkLife:
    """One life of one actor, and its keeper: what a supervisor would be told goes over the link.

    Args:
        link: a non-blocking stream socket; the caller closes it.
        make: given the first frame, makes the actor.
        on_lost: called once if the link ends before the actor has.
        on_acked: called once the actor serves.
        surroundings: the class of what surrounds it.
    """

    _cell: OwnCell
    """Since the first frame, like :attr:`life`."""

    def __init__(
        self,
        link: socket.socket,
        make: Callable[[wire.Start], Actor],
        on_lost: Callable[[], None],
        on_acked: Callable[[], None] = lambda: None,
        surroundings: type[Daemon] = Daemon,
    ) -> None:
        self._link = link
        self._make = make
        self._on_lost = on_lost
        self._on_acked = on_acked
        self._outbox = Outbox(link)
        self._decoder = FrameDecoder(wire.MAX_FRAME)
        self._bodies = wire.Bodies(())
        self.limit: float | Literal["infinity"] = 0.0
        """Seconds that the actor has to stop in."""
        self.daemon = surroundings(self._outbox)
        self.life: Incarnate | None = None
        """Since the first frame."""
        self.over = anyio.Event()
        """Nothing of the actor is left, or it never was."""
        self.stop: wire.Stop | None = None
        """The order to stop, if it has come."""
        self.lost = False
        """The link ended before the end of the actor had begun."""
        self.reason: Reason | None = None
        """Why it ended; none if it never began."""

    async def run(self) -> None:
        """Live until the actor has ended and all that it said has been sent."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._outbox.drain)
                tasks.start_soon(self._read)
                tasks.start_soon(self._tell_summary)
                await self.over.wait()
                await self._outbox.flush(FLUSH_LIMIT)
                tasks.cancel_scope.cancel()
        finally:
            self.daemon.lose()
            self._outbox.close()

    def leave(self, reason: Reason) -> None:
        """Have the actor stop within the time that it has for that, and take no more letters."""
        if self.life is None:
            self.over.set()
            return
        self._stop(reason)
        if self.limit != "infinity":
            self.daemon.backend.call_later(self.limit, self.cancel)

    def cancel(self) -> None:
        """End the actor now, without ``on_stop``."""
        if self.life is not None:
            self.life.kill(Killed())

    async def _read(self) -> None:
        while True:
            await anyio.wait_readable(self._link)
            try:
                data = self._link.recv(1 << 16)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            if not data:
                break
            for payload in self._decoder.feed(data):
                self._handle(wire.read_to_child(payload))
        if not self.over.is_set():
            self.daemon.lose()
            self.lost = self.reason is None
            self._on_lost()

    def _handle(self, frame: wire.ToChild) -> None:
        if self.over.is_set():
            return  # the last words are on their way
        if isinstance(frame, wire.Start):
            self._start(frame)
            return
        life = self.life
        assert life is not None  # Start is the first frame
        match frame:
            case wire.Deliver():
                self._deliver(frame)
            case wire.GiveUp(letter=number):
                self._cell.give_up(number)
            case wire.Stop(reason=reason):
                self.stop = frame
                self._stop(reason)  # the tree counts the time
            case wire.Fail(reason=reason):
                life.fail(reason)
            case wire.Inject(error_type=name, text=text):
                self._cell.put_system(Inject(_rebuilt(name, text)))
            case wire.Suspend(number=number, timeout=timeout):
                self._cell.obey(number, Suspend(), timeout)
            case wire.Resume(number=number, timeout=timeout):
                self._cell.obey(number, Resume(), timeout)
            case wire.Trace(on=on):
                self._cell.put_system(Trace(on))
            case wire.WentDown() | wire.Settled():
                self.daemon.handle(frame)

    def _stop(self, reason: Reason) -> None:
        assert self.life is not None
        self._cell.phase = Phase.STOPPING
        self.life.stop(reason)
        self._outbox.put(wire.Deaf())

    def _start(self, start: wire.Start) -> None:
        self._cell = self.daemon.own = OwnCell(start.name, self.daemon)
        self.limit = start.shutdown

        def make() -> Actor:
            actor = self._make(start)
            if isinstance(actor, Actor):  # else the incarnation refuses it
                self._bodies = wire.Bodies(kind for kind in actor.__handlers__ if issubclass(kind, Message))
            return actor

        spec = ChildSpec(start.name, make, shutdown=start.shutdown)
        self.life = Incarnate(spec, self._cell, start.incarnation, self, self.daemon)
        self._cell.incarnation = start.incarnation
        self._cell.phase = Phase.STARTING
        self.life.start()

    def _deliver(self, frame: wire.Deliver) -> None:
        try:
            message = self._bodies.decode(frame.kind, frame.body)
        except wire.UnknownMessage as error:
            self._outbox.put(wire.Settled(frame.letter, failure=wire.failure_of(error)))
            if frame.timeout is None:
                self.daemon.lost(self._cell.name, frame.kind, "not handled")
            return
        self._cell.receive(frame.letter, message, frame.timeout)

    async def _tell_summary(self) -> None:
        told: Mapping[str, object] = {}
        while True:
            await anyio.sleep(SUMMARY_EVERY)
            if self.life is not None and self.life.acked and (now := self.life.summary()) != told:
                told = now
                try:
                    self._outbox.put(wire.Summary(dict(now)), must=False)
                except (TypeError, ValueError) as error:
                    self._outbox.put(wire.Summary({"error": f"the summary cannot be sent: {error}"}))

    # ---------------------------------------------------------------- what the incarnation tells its keeper

    def acked(self, incarnation: Incarnation) -> None:
        self._cell.phase = Phase.RUNNING
        self._outbox.put(wire.Acked(self._cell.bound, self._cell.overflow))
        self._on_acked()

    def ending(self, incarnation: Incarnation, reason: Reason) -> bool:
        self._cell.phase = Phase.STOPPING
        self.reason = reason
        self._cell.hand_back()
        self._outbox.put(wire.Ending(wire.sendable(reason)))
        return False  # not in this process

    def ended(self, incarnation: Incarnation, reason: Reason) -> None:
        if reason is not self.reason:
            self.reason = reason
            self._outbox.put(wire.Worse(wire.sendable(reason)))
        self.over.set()


def _rebuilt(name: str, text: str) -> Exception:
    """Return the exception that was injected on the other side, where it is a built-in one."""
    kind = getattr(builtins, name, None)
    takes_more = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError, ExceptionGroup)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, takes_more):
        return kind(text)
    return RuntimeError(f"{name}: {text}")
