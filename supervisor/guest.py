"""The tree's end of a guest: an actor that a process from outside serves, over the connection by which it joined.

Its process is not ours: it can be asked to stop, and cut off, and never be killed. What comes from it is checked like
anything from outside. It may say to actors what a process child may say, and no more to the tree than that: it cannot
stop it, speak in its name, or take down who has not linked himself to it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from protocol.boundary import Boundary
from protocol.wire import Code
from supervisor import link_protocol as wire
from supervisor.errors import Refused
from supervisor.link_incarnation import LinkIncarnation
from supervisor.mailbox import Phase
from supervisor.reasons import Crash, Reason, StartFailed, crash_of
from supervisor.record import Status
from supervisor.reports import TOPICS
from supervisor.spec import ChildSpec
from supervisor.tracing import PREFIX, topic_of

if TYPE_CHECKING:
    from supervisor.mailbox import Mailbox
    from supervisor.record import ChildRecord
    from supervisor.runtime import TreeRuntime


def admit(runtime: TreeRuntime, name: str, pid: int) -> Callable[[socket.socket], None]:
    """Let a process serve this name from now on. Return what takes its link, to be called at once.

    Raises:
        Refused: ``unknown_actor``, ``not_joinable``, ``taken``; or ``stopping``, ``restarting`` or ``not_running``: the
            place is closed at present.
    """
    child = runtime.children.get(name)
    if child is None and runtime.is_taken(name):
        raise Refused(f"{name} cannot be joined: its place is not there at present", Code.NOT_RUNNING)
    if child is None:
        places = ", ".join(sorted(one.id for one in runtime.children.values() if one.place is not None))
        raise Refused(f"nobody here is called {name!r}; who joins may be: {places or 'nobody'}", Code.UNKNOWN_ACTOR)
    if child.place is None:
        raise Refused(f"{name} is served by this tree itself", Code.NOT_JOINABLE)
    if _is_stopping(child, runtime):
        raise Refused(f"{name} cannot be joined: its supervisor is stopping", Code.STOPPING)
    if child.incarnation is not None:
        raise Refused(f"{name} is served by another process, PID {child.incarnation.pid}", Code.TAKEN)
    if child.status is not Status.ABSENT:
        closed = Code.NOT_RUNNING if child.cell.phase is Phase.ENDED else Code.RESTARTING
        raise Refused(f"{name} cannot be joined: its place is {child.status}", closed)
    child.cell.incarnation += 1
    guest = GuestIncarnation(child, runtime, pid)
    child.begin(guest, retried=True)
    return guest.take


def _is_stopping(child: ChildRecord, runtime: TreeRuntime) -> bool:
    """Whether any supervisor above it is: what joins now would be asked to stop at once."""
    above = runtime.children.get(child.supervisor_id)
    while above is not None:
        supervisor = runtime.supervisors.get(above.id)
        if supervisor is None or supervisor.stopping is not None:
            return True
        above = runtime.children.get(above.supervisor_id)
    return False


class GuestIncarnation(LinkIncarnation):
    """One join, from its admission to the end of its link."""

    def __init__(self, child: ChildRecord, runtime: TreeRuntime, pid: int) -> None:
        assert isinstance(child.spec, ChildSpec)  # it has a place
        super().__init__(child.spec, child.cell, child.cell.incarnation, child, runtime)
        self.pid: int | None = pid
        self._link: socket.socket | None = None
        self._scope: anyio.CancelScope | None = None  # made by its task: a callback of plain asyncio can make none
        self._is_cut = False

    def take(self, link: socket.socket) -> None:
        """Serve it over this link."""
        self._link = link
        self.start()

    def start(self) -> None:
        """Have it build its actor."""
        self._cell.backend.spawn(self._run, f"link of {self._cell.name}")

    async def _run(self) -> None:
        assert self._link is not None
        with self._link as link:
            with anyio.CancelScope() as self._scope, Boundary(self._scope) as edge:
                self._open(link).put(wire.Start(self._cell.name, self.number, self._patience))
                if self._is_cut:  # before this task began
                    self._cut()
                self._limit("start", self._spec.start_timeout, self._never_started)
                await self._live(link)
            self._scope = None
            with Boundary(None) as rest:
                # From here on its word for a letter that it takes in hand cannot be said, and so it takes none.
                link.shutdown(socket.SHUT_RD)
                self._read_rest(link)
            # In any case; without an error and a reason the link has ended, and nothing was said of why.
            error = edge.error or rest.error
            self._decide(crash_of(error) if error is not None else Crash("ConnectionLost", _GONE))
            self._settle()
            self._close()
        self._tell_end()

    async def _live(self, link: socket.socket) -> None:
        """Serve the link until it ends, or the process does."""
        async with anyio.create_task_group() as tasks:
            self._begin_traffic(tasks)
            tasks.start_soon(self._until_dead, tasks.cancel_scope)
            await self._read(link)
            tasks.cancel_scope.cancel()

    async def _until_dead(self, living: anyio.CancelScope) -> None:
        """Wait for the end of the process: what it has forked may hold the link open, and nobody serves it."""
        assert self.pid is not None
        try:
            process = os.pidfd_open(self.pid)
        except OSError:  # it has ended already, or we do not see it: the end of the link will tell
            return
        try:
            await anyio.wait_readable(process)
        finally:
            anyio.notify_closing(process)
            os.close(process)
        living.cancel()

    # ---------------------------------------------------------------- how it is ended

    def _cut(self) -> None:
        """End the link: more is not ours to end. If that is the tree's wish, and not yet said, it is said now."""
        if self._outbox is not None and self._reason is not None and not self._stopping:
            phase = self._cell.phase
            if phase in (Phase.RESTARTING, Phase.STOPPING):
                self._outbox.put(wire.Stop(wire.sendable(self._reason), returns=phase is Phase.RESTARTING))
        self._is_cut = True
        if self._scope is not None:
            self._scope.cancel()

    def _no_progress(self, reason: Reason) -> None:
        self.kill(reason)

    def _never_started(self) -> None:
        self.kill(StartFailed("StartTimeout", f"no ack within {self._spec.start_timeout:g} s of joining"))

    # ---------------------------------------------------------------- frames

    def _handle(self, frame: wire.Frame) -> None:
        match frame:
            case wire.RequestShutdown():
                raise wire.BadFrame("a guest may not stop the tree")
            case wire.Fail():
                raise wire.BadFrame("a guest may not crash an actor of the tree")
            case wire.Publish(topic=topic) if not self._may_publish(topic):
                raise wire.BadFrame(f"a guest may not publish to {topic[:100]!r}")
            case wire.Link():
                return  # its links go one way: whoever wants to go down with it links himself
            case _:
                super()._handle(frame)

    def _may_publish(self, topic: str) -> bool:
        """What the tree itself says of its actors, nobody else may say."""
        return topic not in TOPICS and (not topic.startswith(PREFIX) or topic == topic_of(self._cell.name))

    def _configure(self, mailbox: Mailbox) -> None:
        """The mailbox is the tree's, and its place has said how large it is."""


_GONE = "it went without a word: its link ended"
