"""Asking a running supervisor: start, terminate, restart, delete, count and list children.

Semantics: ``supervisor:start_child/2`` and kin. Changes are queued and made by the supervisor's own task, one after
another; counts and lists are answered at once, whatever the supervisor is doing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from supervisor.ending import WAITS_FOR_ASKER
from supervisor.errors import (
    AlreadyPresent,
    AlreadyStarted,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    NoSuchChild,
    SpecError,
    StopIncomplete,
    SupervisorError,
    SupervisorStopping,
    TooManyChildren,
)
from supervisor.reasons import Killed, Shutdown
from supervisor.record import ChildRecord, Status
from supervisor.ref import Ref
from supervisor.spec import ChildSpec, SupervisorSpec, names_in
from supervisor.steps import TERMINATED

if TYPE_CHECKING:
    from supervisor.runtime import TreeRuntime
    from supervisor.supervision import Supervisor


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """``supervisor:count_children/1``: all specifications, running children, and how they divide by kind."""

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(frozen=True, slots=True)
class ChildView:
    """One line of ``supervisor:which_children/1``."""

    id: str
    kind: str
    status: str
    incarnation: int
    restarts: int
    pid: int | None


class Request:
    """A change that waits for the supervisor's task, and the task that waits for the change."""

    __slots__ = ("_error", "_waiter", "_work", "supervisor")

    def __init__(self, supervisor: Supervisor, work: Callable[[Supervisor], Awaitable[None]]) -> None:
        self.supervisor = supervisor
        self._work = work
        self._waiter = supervisor.runtime.backend.waiter()
        self._error: Exception | None = SupervisorStopping(f"{supervisor.spec.id} ended in the middle of it")

    async def serve(self) -> None:
        """Make the change, and wake whoever asked."""
        try:
            await self._work(self.supervisor)
            self._error = None
        except (SupervisorError, SpecError, StopIncomplete) as error:
            self._error = error
        finally:
            self.supervisor.runtime.backend.wake(self._waiter)

    def refuse(self, why: str) -> None:
        """Do not let them wait any longer. One that is being served is served to its end all the same."""
        self._error = SupervisorStopping(f"{self.supervisor.spec.id} {why}")
        self.supervisor.runtime.backend.wake(self._waiter)

    async def outcome(self, task: object) -> None:
        """Wait until it was served. There is no time limit, as in OTP: starts and stops have their own."""
        asking = self.supervisor.runtime.asking
        asking[task] = self
        try:
            await self._waiter
        finally:
            del asking[task]
        if self._error is not None:
            raise self._error


class SupervisorRef:
    """The handle of a supervisor, by id; it survives restarts.

    Every method raises :class:`SupervisorStopping` if the supervisor does not run or is about to end; also, at once, to
    an actor whose own start or end the supervisor waits for, or comes to wait for, which could never be answered.
    Cancelled, it may still be carried out.
    """

    def __init__(self, runtime: TreeRuntime, id: str) -> None:
        self._runtime = runtime
        self.id = id

    async def start_child(self, spec: ChildSpec | SupervisorSpec) -> Ref:
        """Start a new child, last in order, and return its ref once it has acked.

        Raises:
            AlreadyStarted: the id is taken, by a running child of this supervisor or anywhere else in the tree.
            AlreadyPresent: the id is taken by a child that does not run.
            TooManyChildren: ``max_children`` are known already.
            ChildStartFailed: it did not start; its specification is discarded.
            SpecError: this supervisor cannot have such a child.
        """
        await self._ask(lambda supervisor: _start_child(supervisor, spec))
        return Ref(self._runtime.cell(spec.id))

    async def start_numbered(self, spec: ChildSpec) -> Ref:
        """Start a new child as :meth:`start_child` does, with a number behind the id that no child of this tree had.

        So the ref of one that has ended is never that of another, and many may be started of one specification.
        """
        return await self.start_child(replace(spec, id=self._runtime.fresh_id(spec.id)))

    async def terminate_child(self, id: str) -> None:
        """Stop a child and leave it stopped; one that is being restarted is not. A temporary one is forgotten.

        Raises:
            NoSuchChild: no child of this id.
            StopIncomplete: it would not end; no new incarnation starts before it has.
        """
        supervisor = self._running()
        child = supervisor.children.get(id)
        if child is not None and child in supervisor.busy:
            child.aborted = True  # a start in progress is given up; an end in progress goes on
            supervisor.wake()
        await self._ask(lambda supervisor: _terminate_child(supervisor, id))

    async def restart_child(self, id: str) -> None:
        """Start a child that is stopped. Not counted as a restart.

        Raises:
            NoSuchChild, ChildRunning, ChildRestarting: it is in no state for that.
            ChildStartFailed: it did not start; its specification is kept.
        """
        await self._ask(lambda supervisor: _restart_child(supervisor, id))

    async def renew_child(self, id: str) -> None:
        """Stop a child and start it again at once, with those that fall with it; one that waits is not waited for.

        Queued casts stay, as over any restart, and the restart-intensity window does not count it. OTP has no such
        request: ``terminate_child`` and ``restart_child`` leave the others of the group up.

        Raises:
            NoSuchChild: no child of this id.
            ChildRestarting: it is, or comes to be, down with others that have to end or to start first.
            ChildStartFailed: it did not start; its supervisor goes on as after any failed restart.
            StopIncomplete: it would not end; it is started as soon as it has.
        """
        await self._ask(lambda supervisor: _renew_child(supervisor, id))

    async def delete_child(self, id: str) -> None:
        """Forget a child that is stopped.

        Raises:
            NoSuchChild, ChildRunning, ChildRestarting: it is in no state for that.
        """
        await self._ask(lambda supervisor: _delete_child(supervisor, id))

    async def count_children(self) -> ChildCounts:
        """Count the children. Answered at once, also while the supervisor is busy or stopping."""
        children = list(self._running().children.values())
        supervisors = sum(isinstance(child.spec, SupervisorSpec) for child in children)
        active = sum(child.alive for child in children)
        return ChildCounts(len(children), active, supervisors, len(children) - supervisors)

    async def which_children(self) -> list[ChildView]:
        """List the children in start order. Answered at once, also while the supervisor is busy or stopping."""
        return [
            ChildView(
                child.id,
                "supervisor" if isinstance(child.spec, SupervisorSpec) else "worker",
                child.shown_status,
                child.cell.incarnation,
                child.restarts,
                None if child.incarnation is None else child.incarnation.pid,
            )
            for child in self._running().children.values()
        ]

    def _running(self) -> Supervisor:
        supervisor = self._runtime.supervisors.get(self.id)
        if supervisor is None:
            raise SupervisorStopping(f"{self.id} is not running")
        return supervisor

    async def _ask(self, work: Callable[[Supervisor], Awaitable[None]]) -> None:
        supervisor = self._running()
        if supervisor.stopping is not None:
            raise SupervisorStopping(f"{self.id} is stopping")
        task = self._runtime.backend.current_task()
        if supervisor.waits_for(task):
            raise SupervisorStopping(f"{self.id} {WAITS_FOR_ASKER}")
        request = Request(supervisor, work)
        supervisor.requests.append(request)
        supervisor.wake()
        await request.outcome(task)


async def _start_child(supervisor: Supervisor, spec: ChildSpec | SupervisorSpec) -> None:
    supervisor.spec.check_child(spec)
    known = supervisor.children.get(spec.id)
    if known is not None:
        raise (AlreadyStarted if known.alive else AlreadyPresent)(f"{spec.id} is already a child of this supervisor")
    for name in names_in(spec):
        if supervisor.runtime.is_taken(name) and name not in supervisor.free_names(spec.id):
            raise AlreadyStarted(f"the name {name} is taken in this tree")
    most = supervisor.spec.max_children
    if most is not None and len(supervisor.children) >= most:
        raise TooManyChildren(f"{supervisor.spec.id} has {most} children, and may have no more")
    child = supervisor.add(spec)
    if not await supervisor.start_one(child, retried=False) and supervisor.stopping is None:
        reason = child.last_reason or Killed()
        supervisor.let_go(child)
        raise ChildStartFailed(spec.id, reason)
    _not_when_stopping(supervisor)


async def _terminate_child(supervisor: Supervisor, id: str) -> None:
    child = _child(supervisor, id)
    ended = await supervisor.end_one(child, Shutdown(TERMINATED), "final")
    supervisor.pass_on_restart(child)
    if not ended:
        raise StopIncomplete([supervisor.runtime.stuck[id]])
    child.settle_stopped("not running")
    if child.spec.restart == "temporary":
        supervisor.let_go(child)


async def _restart_child(supervisor: Supervisor, id: str) -> None:
    child = _stopped_child(supervisor, id)
    if not await supervisor.start_one(child, retried=False) and supervisor.stopping is None:
        if not child.alive:
            child.settle_stopped("not running")
        raise ChildStartFailed(id, child.last_reason or Killed())
    _not_when_stopping(supervisor)


async def _renew_child(supervisor: Supervisor, id: str) -> None:
    child = _child(supervisor, id)
    if _waits(child):
        raise ChildRestarting(f"{id} is about to be restarted with those that it fell with")
    await supervisor.renew(child)
    _not_when_stopping(supervisor)
    if id in supervisor.runtime.stuck:
        raise StopIncomplete([supervisor.runtime.stuck[id]])
    if id in supervisor.pending and child.due == float("inf"):
        raise ChildRestarting(f"{id} is started as soon as those that fall with it have ended")
    if _waits(child):
        raise ChildRestarting(f"{id} is started as soon as another one, that fell with it, can be started")
    if not child.started:
        raise ChildStartFailed(id, child.last_reason or Killed())


def _waits(child: ChildRecord) -> bool:
    """Whether it is down with another one, and started with that."""
    return child.status is Status.WAITING


async def _delete_child(supervisor: Supervisor, id: str) -> None:
    supervisor.let_go(_stopped_child(supervisor, id))


def _not_when_stopping(supervisor: Supervisor) -> None:
    if supervisor.stopping is not None:
        raise SupervisorStopping(f"{supervisor.spec.id} is stopping")


def _child(supervisor: Supervisor, id: str) -> ChildRecord:
    child = supervisor.children.get(id)
    if child is None:
        raise NoSuchChild(f"{supervisor.spec.id} has no child {id}")
    return child


def _stopped_child(supervisor: Supervisor, id: str) -> ChildRecord:
    child = _child(supervisor, id)
    if id in supervisor.pending or child.status is Status.WAITING:
        raise ChildRestarting(f"{id} is about to be restarted")
    if child.alive:
        raise ChildRunning(f"{id} is running")
    return child
