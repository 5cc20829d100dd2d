"""A whole tree in anyone's asyncio or trio program: open it, use it, leave it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from protocol.backend import Waiter, current_backend
from protocol.messages.system import TreeNode
from supervisor.clock import Clock, SystemClock
from supervisor.errors import BootRefused, SpecError, StopIncomplete, TreeStartFailed
from supervisor.introspection import Introspection
from supervisor.reasons import Killed, Reason, Shutdown, StartFailed
from supervisor.record import ChildRecord
from supervisor.ref import Ref
from supervisor.requests import SupervisorRef
from supervisor.runtime import TreeRuntime
from supervisor.spec import SupervisorSpec
from supervisor.stream import EventStream
from supervisor.supervision import Supervisor
from supervisor.view import node_of


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a tree ended.

    ``exit_code``: what was given to ``request_shutdown``; 0 where the root ended cleanly by itself; 1 where it gave up.
    """

    reason: Reason
    exit_code: int


class Tree:
    """A running tree. Made by :func:`open_tree`; used on its event loop only."""

    def __init__(self, spec: SupervisorSpec, clock: Clock, name: str) -> None:
        if not isinstance(spec, SupervisorSpec):
            raise SpecError(f"a tree wants a SupervisorSpec at its root, not {spec!r}")
        self.name = name
        self.stream = EventStream(clock)
        """What happens in the tree, by topic."""
        self._runtime = TreeRuntime(clock, current_backend(), self.stream)
        self._record = ChildRecord(spec, "", self._runtime, self._runtime.tally.root(spec.id))
        self._runtime.children[spec.id] = self._record
        self._root = Supervisor(spec, 1, self, self._runtime)
        self._record.cell.incarnation = 1
        self._record.begin(self._root, retried=False)
        self._runtime.view = self.view
        self._runtime.on_shutdown_request = self.request_shutdown
        self._exit_code: int | None = None
        self._ended: Reason | None = None
        self._waiters: list[Waiter] = []
        self._started = False

    def ref(self, name: str) -> Ref:
        """The ref of any actor, by name, running or not."""
        return Ref(self._runtime.cell(name))

    def supervisor(self, id: str) -> SupervisorRef:
        """The handle of a supervisor, by id."""
        return SupervisorRef(self._runtime, id)

    def view(self) -> TreeNode:
        """The tree as it is now. No actor is asked, so it is answered with any of them wedged."""
        return node_of(self._record, self._runtime)

    @property
    def clock(self) -> Clock:
        """What the tree and its actors take for the time."""
        return self._runtime.clock

    @property
    def introspection(self) -> Introspection:
        """The state of any actor; suspend, resume, restart and trace it."""
        return self._runtime.introspection

    @property
    def dead_letters(self) -> dict[str, int]:
        """How many messages nobody handled, by reason."""
        return dict(self._runtime.registry.dead_letters)

    @property
    def stopping(self) -> bool:
        """Whether the whole tree has begun to stop, for whatever reason, or has ended."""
        return self._root.stopping is not None

    def request_shutdown(self, reason: str, exit_code: int = 0) -> None:
        """Begin to stop the tree; :meth:`wait` returns once it has stopped.

        The first request decides; one to a tree that already ends, because it gave up or was done, changes nothing.
        """
        if not self.stopping:
            self._exit_code = exit_code
        self._root.stop(Shutdown(reason))

    def shorten_deadline(self, seconds: float) -> None:
        """From now on no stop may take longer than so many seconds; whoever takes longer is killed."""
        self._runtime.shorten_deadline(seconds)

    def inject_fault(self, actor_name: str, error: Exception) -> None:
        """The fault port: have the actor raise this error, before its next message, as if a handler had.

        Raises:
            NotRunning: no actor of this name runs.
        """
        self._runtime.inject(actor_name, error)

    async def wait(self) -> ExitReport:
        """Wait until the tree has ended, by a request, by giving up, or by its significant children."""
        await self._until_ended()
        assert self._ended is not None
        code = self._exit_code
        if code is None:
            clean = isinstance(self._ended, Shutdown) and not self._root.gave_up
            code = 0 if clean else 1
        return ExitReport(self._ended, code)

    # -- the keeper of the root

    def acked(self, incarnation: object) -> None:
        self._started = True
        self._record.acked(self._root)
        self._wake()

    def ending(self, incarnation: object, reason: Reason) -> bool:
        self._record.leave("final")
        return self._record.ending(self._root, reason)

    def ended(self, incarnation: object, reason: Reason) -> None:
        self._ended = reason
        self._record.ended(self._root, reason)
        self._wake()

    # -- for open_tree

    async def boot(self) -> None:
        """Start the root and wait until every child has acked."""
        self._root.start()
        while not self._started and self._ended is None:
            await self._change()
        if not self._started and self._exit_code is None:
            reason = self._ended or Killed()
            if isinstance(reason, StartFailed) and isinstance(reason.error, BootRefused):
                raise reason.error
            raise TreeStartFailed(self.name, reason)

    async def close(self) -> None:
        """Stop the tree, in reverse order, and wait for it, also where asyncio cancels the task that waits once more:
        no shield keeps that out, and nobody may be left behind. It is cancelled afterwards."""
        self._root.stop(Shutdown())
        cancelled: BaseException | None = None
        while self._ended is None:
            try:
                await self._change()
            except anyio.get_cancelled_exc_class() as error:
                cancelled = error
        self.stream.close()
        self._runtime.alarms.close()
        if cancelled is not None:
            raise cancelled
        if self._runtime.stuck:
            raise StopIncomplete(list(self._runtime.stuck.values()))

    async def _until_ended(self) -> None:
        while self._ended is None:
            await self._change()

    async def _change(self) -> None:
        waiter = self._runtime.backend.waiter()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            self._runtime.backend.wake(waiter)


@asynccontextmanager
async def open_tree(
    spec: SupervisorSpec, *, clock: Clock | None = None, name: str = "root"
) -> AsyncGenerator[Tree, None]:
    """Run a tree for the length of the block. It installs no signal handlers and never ends its host.

    Entering returns once every child has acked. Leaving, for whatever cause, stops the children in reverse order, each
    within its shutdown limit; a cancellation of the block waits for that.

    Raises:
        BootRefused: a child refused the boot.
        TreeStartFailed: a child did not start; those before it have been stopped.
        StopIncomplete: on leaving, actors that would not end, with their stacks.
    """
    tree = Tree(spec, clock or SystemClock(), name)
    try:
        await tree.boot()
        yield tree
    finally:
        with anyio.CancelScope(shield=True), tree.clock.left_alone():
            await tree.close()
