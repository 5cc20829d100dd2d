"""The daemon's end of a process child: one incarnation, from the fork to the last of its descendants.

A :class:`ProcessIncarnation` is to the tree what a task's is. It takes letters out of the cell, a few ahead of the
actor, and sends them over the socketpair; a letter that the actor has not taken in hand when the process ends goes back
to the head of the mailbox, so a restart keeps queued casts and never redelivers the one in hand. A wedged process fills
its window, then its mailbox, and then its senders are told so by the mailbox's own policy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import anyio

from protocol.boundary import Boundary
from protocol.framing import FrameDecoder, FrameError
from supervisor import custody
from supervisor import link_protocol as wire
from supervisor.host_protocol import Exited
from supervisor.hosting import HostFailed
from supervisor.hosts import end_host, host_of, leave_host
from supervisor.link_traffic import Traffic
from supervisor.liveness import Liveness
from supervisor.mailbox import Mailbox, Phase
from supervisor.outbox import Outbox
from supervisor.reasons import Crash, Killed, Reason, StartFailed, crash_of, is_clean, start_failure_of
from supervisor.spec import ProcessStart

if TYPE_CHECKING:
    from protocol.backend import TimerHandle
    from supervisor.incarnation import Keeper, Surroundings
    from supervisor.mailbox import Cell
    from supervisor.spec import ChildSpec

_log = logging.getLogger("supervisor")

EXIT_GRACE = 2.0
"""Seconds that a process has from its last frame, or the end of the link, to its exit."""
DUMP_GRACE = 0.3
"""Seconds that a hung process has to write its stacks to stderr before it is killed."""
HOST_GRACE = 2.5
"""Seconds after SIGKILL until a host that does not report the exit is killed, too."""
HELD_LIMIT = 60.0
"""Seconds for which an end waits for processes that the kernel holds although they were killed."""


class ProcessIncarnation:
    """One life of an actor in a process of its own."""

    def __init__(
        self,
        spec: ChildSpec,
        cell: Cell,
        number: int,
        keeper: Keeper,
        surroundings: Surroundings,
        group: Cell | None = None,
    ) -> None:
        assert isinstance(spec.start, ProcessStart)  # ChildSpec refuses anything else
        self.number = number
        self.pid: int | None = None
        self.last_message: str | None = None
        self._spec = spec
        self._start = spec.start
        self._patience: float | Literal["infinity"] = 0.0 if spec.shutdown == "brutal_kill" else spec.shutdown
        self._cell = cell
        self._keeper = keeper
        self._around = surroundings
        self._host = host_of(cell, spec.start, group)
        self._forked: int | None = None
        self._starting = anyio.CancelScope()
        self._outbox: Outbox | None = None
        self._traffic: Traffic | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._decoder = FrameDecoder(wire.MAX_FRAME)
        self._acked = False
        self._stopping = False
        """The tree asked it to stop, and ends it when its time is up."""
        self._reason: Reason | None = None
        self._announced: Reason | None = None
        """What the process itself said first of its end."""
        self._gone = False
        """The process has ended, and been reported so: there is nothing to kill any more."""
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

    def start(self) -> None:
        """Fork the process and have it build its actor."""
        self._cell.backend.spawn(self._run, f"link of {self._cell.name}")

    def stop(self, reason: Reason, limit: float | None) -> None:
        """Ask the actor to stop. Before the ack the process is killed at once; after ``limit`` the tree does it."""
        if not self._acked:
            self.kill(reason)
        elif self._outbox is not None:
            self._stopping = True
            self._outbox.put(wire.Stop(wire.sendable(reason)))

    def kill(self, reason: Reason) -> None:
        """SIGKILL to the process and all its descendants; it ends with ``reason`` unless it has one already."""
        if self._ended:
            return
        self._decide(reason)
        self._kill_process()

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

    # ---------------------------------------------------------------- the life

    async def _run(self) -> None:
        link: socket.socket | None = None
        with self._starting, Boundary(self._starting) as edge:
            link = await self._begin()
            if link is not None:
                await self._live(link)
        if edge.error is not None:  # the machine has run out of something; the process must not outlive its supervision
            self.kill(crash_of(edge.error))
        if link is not None:
            link.close()
        await self._conclude()

    async def _begin(self) -> socket.socket | None:
        """Fork the process and tell it what to run. None: it will not run, and the reason is known."""
        with Boundary(self._starting) as edge, contextlib.ExitStack() as undo:
            arguments = wire.body_of(self._start.arguments())
            link, forked = await self._host.fork()
            undo.callback(link.close)
            self._forked, self.pid = forked.number, forked.pid
            outbox = Outbox(link)
            undo.callback(outbox.close)
            outbox.put(wire.Start(self._cell.name, self.number, self._start.target, arguments, self._patience))
            undo.pop_all()
        if edge.error is not None:
            self.kill(_start_failure(edge.error))
            return None
        self._outbox = outbox
        return link

    async def _live(self, link: socket.socket) -> None:
        """Serve the link until the process has ended."""
        assert self._forked is not None and self._outbox is not None  # _begin saw to it
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._traffic = Traffic(self._cell, self._around, self._outbox, tasks)
                tasks.start_soon(self._outbox.drain)
                tasks.start_soon(self._read, link)
                exited = await self._host.exited(self._forked)
                tasks.cancel_scope.cancel()
            self._read_rest(link)
            if exited.left:
                await anyio.to_thread.run_sync(custody.end_numbers, exited.left, HELD_LIMIT)
            how = _reason_of(exited)
            self._decide(how)
            if exited.status != 0 and self._reason is not None and is_clean(self._reason):
                self._reason = how  # it had begun to end cleanly, and came to another end
        finally:
            self._outbox.close()
            self._outbox = None

    async def _conclude(self) -> None:
        """Nothing is served any more: see to it that nothing runs, let go of everything, and tell the keeper."""
        assert self._reason is not None
        with Boundary(None) as edge:
            await self._host.settle(self._forked)
            self._gone = True
            if self._traffic is not None:
                self._traffic.end(self._reason)
            await leave_host(self._cell)
        if edge.error is not None:  # whoever waits for the end must hear of it all the same
            _log.error("%s: its end was not clean", self._cell.name, exc_info=edge.error)
        self._ended = True
        for timer in self._limits.values():
            timer.cancel()
        self._keeper.ended(self, self._reason)
        if self._cell.phase is Phase.ENDED:  # it was stuck, and the supervisor that wanted it again has gone meanwhile
            await end_host(self._cell)

    def _decide(self, reason: Reason) -> None:
        if self._reason is None:
            self._reason = reason
            if self._traffic is not None:
                self._traffic.stop_feeding()
            if self._liveness is not None:
                self._liveness.stop()
            self._keeper.ending(self, reason)

    # ---------------------------------------------------------------- frames

    async def _read(self, link: socket.socket) -> None:
        while True:
            await anyio.wait_readable(link)
            try:
                if not self._read_once(link):
                    break
            except BlockingIOError:
                continue
        # The death notice. The exit follows; a process that has closed its link and lives on is of no use.
        self._limit("exit", EXIT_GRACE, self._kill_process)

    def _read_rest(self, link: socket.socket) -> None:
        """Read what the process had said before it ended: the notice of its end may have overtaken it."""
        try:
            while self._read_once(link):
                continue
        except BlockingIOError:
            return  # the process is gone, but something that it had forked holds its end open

    def _read_once(self, link: socket.socket) -> bool:
        """Handle what can be read now. False: it was the end. Raises ``BlockingIOError`` if there is nothing."""
        try:
            data = link.recv(1 << 16)
        except ConnectionResetError:
            return False
        try:
            for payload in self._decoder.feed(data):
                self._handle(wire.read_to_daemon(payload))
        except (FrameError, wire.BadFrame) as error:
            self.kill(Crash("ProtocolError", f"the process sent what cannot be understood: {error}"))
            return False
        return bool(data)

    def _handle(self, frame: wire.Frame) -> None:
        match frame:
            case wire.Acked(bound=bound, overflow=overflow):
                self._on_ack(Mailbox(bound, overflow))
            case wire.Beat(phase=phase, limit=limit):
                if self._liveness is not None:
                    self._liveness.beat(phase, limit)
            case wire.Ending(reason=reason):
                self._announced = reason
                self._decide(reason)
                assert self._traffic is not None  # made before the reader was
                self._traffic.refuse_waiting()
                if self._patience != "infinity" and not self._stopping:  # on_stop has yet to run
                    self._limit("exit", self._patience + EXIT_GRACE, self._kill_process)
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

    def _on_ack(self, mailbox: Mailbox) -> None:
        if self._reason is not None or self._tasks is None or self._traffic is None:
            return
        self._acked = True
        self._cell.configure(mailbox)
        self._keeper.acked(self)
        if self._liveness is not None:
            self._liveness.start()
        self._tasks.start_soon(self._traffic.feed)

    # ---------------------------------------------------------------- limits

    def _limit(self, what: str, seconds: float, passed: Callable[[], None]) -> None:
        """Call ``passed`` in so many real seconds, in place of an earlier limit of the same kind."""
        if (earlier := self._limits.get(what)) is not None:
            earlier.cancel()
        self._limits[what] = self._cell.backend.call_later(seconds, passed)

    def _no_progress(self, reason: Reason) -> None:
        self._decide(reason)
        if self._forked is not None:
            self._host.signal(self._forked, signal.SIGUSR1)  # faulthandler writes where it hangs
        self._limit("dump", DUMP_GRACE, self._kill_process)

    def _kill_process(self) -> None:
        if self._forked is None:
            self._starting.cancel()
        elif not self._gone:
            self._host.signal(self._forked, signal.SIGKILL)
            if "host" not in self._limits:
                self._limit("host", HOST_GRACE, self._host.kill)


def _start_failure(error: BaseException) -> StartFailed:
    if isinstance(error, HostFailed):
        return StartFailed(error.error_type, error.text, error.trace)
    return start_failure_of(error)


def _reason_of(exited: Exited) -> Reason:
    """Say why a process ended that did not say it itself."""
    code = os.waitstatus_to_exitcode(exited.status)
    if code < 0:
        return Killed(-code)
    return Crash("ProcessExited", f"the process ended with exit status {code} and without a reason")
