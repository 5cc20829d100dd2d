"""The daemon's end of a process child: one incarnation, from the fork to the last of its descendants."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

import anyio
import msgspec

from protocol.boundary import Boundary
from supervisor import custody
from supervisor import link_protocol as wire
from supervisor.host_protocol import Exited
from supervisor.hosting import HostFailed
from supervisor.hosts import end_host, host_of, leave_host
from supervisor.link_incarnation import EXIT_GRACE, LinkIncarnation
from supervisor.mailbox import Phase
from supervisor.reasons import Crash, Killed, Reason, StartFailed, crash_of, is_clean, start_failure_of
from supervisor.spec import ProcessStart

if TYPE_CHECKING:
    from supervisor.incarnation import Keeper, Surroundings
    from supervisor.mailbox import Cell
    from supervisor.spec import ChildSpec

_log = logging.getLogger("supervisor")

DUMP_GRACE = 0.3
"""Seconds that a hung process has to write its stacks to stderr before it is killed."""
HOST_GRACE = 2.5
"""Seconds after SIGKILL until a host that does not report the exit is killed, too."""
HELD_LIMIT = 60.0
"""Seconds for which an end waits for processes that the kernel holds although they were killed."""


class ProcessIncarnation(LinkIncarnation):
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
        super().__init__(spec, cell, number, keeper, surroundings)
        assert isinstance(spec.start, ProcessStart)  # ChildSpec refuses anything else
        self._start = spec.start
        self._host = host_of(cell, spec.start, group)
        self._forked: int | None = None
        self._starting = anyio.CancelScope()
        self._gone = False
        """The process has ended, and been reported so: there is nothing to kill any more."""

    def start(self) -> None:
        """Fork the process and have it build its actor."""
        self._cell.backend.spawn(self._run, f"link of {self._cell.name}")

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
            arguments = _arguments(self._start)
            link, forked = await self._host.fork()
            undo.callback(link.close)
            self._forked = forked.number
            self.pid: int | None = forked.pid
            outbox = self._open(link)
            undo.callback(self._close)
            outbox.put(wire.Start(self._cell.name, self.number, self._patience, self._start.target, arguments))
            undo.pop_all()
        if edge.error is not None:
            self.kill(_start_failure(edge.error))
        return None if edge.cancelled or edge.error is not None else link

    async def _live(self, link: socket.socket) -> None:
        """Serve the link until the process has ended."""
        assert self._forked is not None  # _begin saw to it
        try:
            async with anyio.create_task_group() as tasks:
                self._begin_traffic(tasks)
                tasks.start_soon(self._until_silent, link)
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
            self._close()

    async def _conclude(self) -> None:
        """Nothing is served any more: see to it that nothing runs, let go of everything, and tell the keeper."""
        with Boundary(None) as edge:
            await self._host.settle(self._forked)
            self._gone = True
            self._settle()
            await leave_host(self._cell)
        if edge.error is not None:  # whoever waits for the end must hear of it all the same
            _log.error("%s: its end was not clean", self._cell.name, exc_info=edge.error)
        self._tell_end()
        if self._cell.phase is Phase.ENDED:  # it was stuck, and the supervisor that wanted it again has gone meanwhile
            await end_host(self._cell)

    async def _until_silent(self, link: socket.socket) -> None:
        await self._read(link)
        # The death notice. The exit follows; a process that has closed its link and lives on is of no use.
        self._limit("exit", EXIT_GRACE, self._cut)

    # ---------------------------------------------------------------- how it is ended

    def _no_progress(self, reason: Reason) -> None:
        self._decide(reason)
        if self._forked is not None:
            self._host.signal(self._forked, signal.SIGUSR1)  # faulthandler writes where it hangs
        self._limit("dump", DUMP_GRACE, self._cut)

    def _cut(self) -> None:
        """SIGKILL to the process and all its descendants."""
        if self._forked is None:
            self._starting.cancel()
        elif not self._gone:
            self._host.signal(self._forked, signal.SIGKILL)
            if "host" not in self._limits:
                self._limit("host", HOST_GRACE, self._host.kill)


def _arguments(start: ProcessStart) -> msgspec.Raw:
    arguments = start.arguments()
    try:
        return wire.body_of(arguments)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the arguments of {start.target} cannot be encoded: {error}") from error


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
