"""The child's end of a process child: an event loop in the main thread, one actor, and the link to the daemon.

The actor runs in the very same :class:`~supervisor.task_child.TaskIncarnation` as one that shares the daemon's loop, so
its semantics are the same; only its surroundings are others: what belongs to the tree goes over the socketpair.
The end of file on the link is the daemon's death, and ends this process.
"""

from __future__ import annotations

import builtins
import importlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

import anyio
import msgspec

from protocol.framing import FrameDecoder
from protocol.messages.common import Message
from supervisor import link_protocol as wire
from supervisor.actor import Actor
from supervisor.host_protocol import Backend
from supervisor.incarnation import Incarnation
from supervisor.link_child import Daemon, OwnCell
from supervisor.mailbox import Phase
from supervisor.monitor import Inject, Resume, Suspend, Trace
from supervisor.outbox import Outbox
from supervisor.reasons import Reason
from supervisor.spec import ChildSpec
from supervisor.task_child import TaskIncarnation

SUMMARY_EVERY = 1.0
"""Seconds between two reports of what the actor says of itself."""
BEAT_EVERY = 0.05
"""Beats that follow each other faster than this, in seconds, and in the same phase, are not all sent."""
FLUSH_LIMIT = 2.0
"""Seconds that the last frames have to leave."""


def warm_up(backend: Backend) -> None:
    """Import what a child needs, in the host. Starts no event loop and no thread."""
    importlib.import_module(f"anyio._backends._{backend}")
    if backend == "trio":
        importlib.import_module("protocol.backend_trio")


def main(link: socket.socket, backend: Backend) -> NoReturn:
    """Run the actor that the daemon names, and end this process."""
    link.setblocking(False)
    anyio.run(_Child(link).run, backend=backend)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """End at once: a worker thread that hangs must not hold up a process whose actor has ended."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also if the disk behind them is full
        os._exit(code)


class _Life(TaskIncarnation):
    """A task's incarnation whose liveness is measured by the daemon, in whatever state this loop is."""

    __slots__ = ("_beaten", "_beaten_in", "_outbox")

    def __init__(self, spec: ChildSpec, cell: OwnCell, number: int, keeper: _Child, daemon: Daemon) -> None:
        super().__init__(spec, cell, number, keeper, daemon)
        self._outbox = daemon.outbox
        self._beaten = 0.0
        self._beaten_in: tuple[str, float | None] = ("", None)

    def beat(self, phase: str, limit: float | None) -> None:
        now = time.monotonic()
        if now - self._beaten >= BEAT_EVERY or self._beaten_in != (phase, limit):
            self._beaten, self._beaten_in = now, (phase, limit)
            self._outbox.put(wire.Beat(phase, limit))


class _Child:
    """One life of one actor, and its keeper: what a supervisor would be told goes to the daemon."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._outbox = Outbox(link)
        self._decoder = FrameDecoder(wire.MAX_FRAME)
        self._ended = anyio.Event()
        self._life: _Life | None = None
        self._told: Reason | None = None
        self._bodies = wire.Bodies(())

    async def run(self) -> None:
        """Live until the actor has ended."""
        async with anyio.create_task_group() as tasks:
            self._daemon = Daemon(self._outbox)
            tasks.start_soon(self._outbox.drain)
            tasks.start_soon(self._read)
            tasks.start_soon(self._tell_summary)
            await self._ended.wait()
            await self._outbox.flush(FLUSH_LIMIT)
            _exit(0)

    async def _read(self) -> None:
        while True:
            await anyio.wait_readable(self._link)
            try:
                data = self._link.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                _exit(1)  # the daemon is gone, and nobody is left to stop gently for
            for payload in self._decoder.feed(data):
                self._handle(wire.read_to_child(payload))

    def _handle(self, frame: wire.ToChild) -> None:
        if isinstance(frame, wire.Start):
            self._start(frame)
            return
        life = self._life
        assert life is not None  # Start is the first frame
        match frame:
            case wire.Deliver():
                self._deliver(frame)
            case wire.GiveUp(letter=number):
                self._cell.give_up(number)
            case wire.Stop(reason=reason):
                self._cell.phase = Phase.STOPPING
                life.stop(reason, None)  # the daemon counts the time
                self._outbox.put(wire.Deaf())
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
                self._daemon.handle(frame)

    def _start(self, start: wire.Start) -> None:
        daemon = self._daemon
        self._cell = OwnCell(start.name, daemon)
        daemon.own = self._cell

        def make() -> Actor:
            module, _, name = start.target.partition(":")
            klass = getattr(importlib.import_module(module), name)
            if not (isinstance(klass, type) and issubclass(klass, Actor)):
                raise TypeError(f"{start.target} is no Actor class")
            self._bodies = wire.Bodies(kind for kind in klass.__handlers__ if issubclass(kind, Message))
            return klass(**msgspec.msgpack.decode(start.arguments))

        spec = ChildSpec(start.name, make, shutdown=start.shutdown)
        self._life = _Life(spec, self._cell, start.incarnation, self, daemon)
        self._cell.incarnation = start.incarnation
        self._cell.phase = Phase.STARTING
        self._life.start()

    def _deliver(self, frame: wire.Deliver) -> None:
        try:
            message = self._bodies.decode(frame.kind, frame.body)
        except wire.UnknownMessage as error:
            self._outbox.put(wire.Settled(frame.letter, failure=wire.failure_of(error)))
            if frame.timeout is None:
                self._daemon.lost(self._cell.name, frame.kind, "not handled")
            return
        self._cell.receive(frame.letter, message, frame.timeout)

    async def _tell_summary(self) -> None:
        told: Mapping[str, object] = {}
        while True:
            await anyio.sleep(SUMMARY_EVERY)
            if self._life is not None and self._life.acked and (now := self._life.summary()) != told:
                told = now
                try:
                    self._outbox.put(wire.Summary(dict(now)), must=False)
                except (TypeError, ValueError) as error:
                    self._outbox.put(wire.Summary({"error": f"the summary cannot be sent: {error}"}))

    # ---------------------------------------------------------------- what the incarnation tells its keeper

    def acked(self, incarnation: Incarnation) -> None:
        self._cell.phase = Phase.RUNNING
        self._outbox.put(wire.Acked(self._cell.bound, self._cell.overflow))

    def ending(self, incarnation: Incarnation, reason: Reason) -> bool:
        self._cell.phase = Phase.STOPPING
        self._told = reason
        self._cell.hand_back()
        self._outbox.put(wire.Ending(wire.sendable(reason)))
        return False  # not in this process

    def ended(self, incarnation: Incarnation, reason: Reason) -> None:
        if reason is not self._told:
            self._outbox.put(wire.Worse(wire.sendable(reason)))
        self._ended.set()


def _rebuilt(name: str, text: str) -> Exception:
    """Return the exception that was injected on the other side, where it is a built-in one."""
    kind = getattr(builtins, name, None)
    takes_more = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError, ExceptionGroup)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, takes_more):
        return kind(text)
    return RuntimeError(f"{name}: {text}")
