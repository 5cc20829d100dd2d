"""The two steps that all the work of a supervisor is made of: start one child, end one child, within its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from supervisor.incarnation import Incarnation, maker_of, release
from supervisor.limits import kill_grace, start_limit, stop_limit
from supervisor.reasons import Killed, Reason, Shutdown, StartFailed
from supervisor.record import ChildRecord, Fate
from supervisor.reports import report_lifecycle
from supervisor.spec import SupervisorSpec

if TYPE_CHECKING:
    from protocol.backend import Waiter
    from supervisor.runtime import TreeRuntime


TERMINATED = "terminated on request"
WAITS_FOR_ASKER = "waits for the very actor that asks"


class Steps:
    """Waiting, starting and ending, for the one task of a supervisor.

    Whatever happens only wakes the task, which then looks at what is; so nothing is lost, wherever it was waiting.
    """

    def __init__(self, runtime: TreeRuntime, make_supervisor: Callable[[ChildRecord], Incarnation]) -> None:
        self.runtime = runtime
        self.stopping: Reason | None = None
        """Set once the supervisor has to stop; every wait for a start then ends at once."""
        self.hurry = False
        """Set once it was killed: children are not asked any more."""
        self.busy_with: ChildRecord | None = None
        """The child whose start or end is being waited for."""
        self._make_supervisor = make_supervisor
        self._waiter: Waiter | None = None

    def waits_for(self, task: object) -> bool:
        """Whether the present step waits for the actor that this task serves, or for one above it."""
        child = self.busy_with
        while child is not None:
            if child.cell.serving_task is task:
                return True
            below = self.runtime.supervisors.get(child.id)
            child = None if below is None else below.busy_with
        return False

    def halted(self) -> bool:
        """Whether the supervisor has to stop; no new child is started any more."""
        return self.stopping is not None

    def wake(self) -> None:
        """Something has happened that the supervisor may be waiting for."""
        if self._waiter is not None:
            self.runtime.backend.wake(self._waiter)

    async def pause(self, until: float | None) -> None:
        """Wait for a wake, at most until this time on the monotonic clock."""
        backend = self.runtime.backend
        self._waiter = waiter = backend.waiter()
        alarm = None
        if until is not None and until != float("inf"):
            alarm = self.runtime.alarms.at(until, lambda: backend.wake(waiter))
        try:
            await waiter
        finally:
            self._waiter = None
            if alarm is not None:
                alarm.cancel()

    async def until(self, done: Callable[[], bool], deadline: Callable[[], float | None]) -> bool:
        """Wait until ``done()``; False if ``deadline()`` passed first. Both are asked again at each wake."""
        while not done():
            limit = deadline()
            if limit is not None and limit <= self.runtime.clock.monotonic():
                return False
            await self.pause(limit)
        return True

    async def start_one(self, child: ChildRecord, *, retried: bool) -> bool:
        """Start a child and wait for its ack. True if it runs.

        If not, ``child.last_reason`` says why and nothing of it is left, with two exceptions: the supervisor has to
        stop (the child is ended with all others), or the child is stuck (``child.alive``).
        """
        child.aborted = False
        if not await self._name_is_free(child):
            return False
        child.cell.incarnation += 1
        child.begin(self._make(child), retried=retried)
        assert child.incarnation is not None
        child.incarnation.start()
        self.busy_with = child
        limit = self.runtime.clock.monotonic() + start_limit(child.spec)
        settled = await self.until(
            lambda: child.started or not child.alive or self.halted() or child.aborted, lambda: limit
        )
        self.busy_with = None
        if child.started:
            return True  # also if it has ended again since: that is an exit like any other
        if settled and not child.alive:
            child.exit = None
            return False
        if self.stopping is None:
            reason: Reason = StartFailed("StartTimeout", f"no ack within {start_limit(child.spec):g} s")
            if child.aborted:
                reason = Shutdown(TERMINATED)
            await self.end_one(child, reason, "again" if retried and not child.aborted else "final")
            child.last_reason = reason
        return False

    async def _name_is_free(self, child: ChildRecord) -> bool:
        """Wait, within the start limit, until a stuck incarnation of this name, of an earlier supervisor, has ended.

        This is what keeps two incarnations from overlapping (tqwewe/kameo#387, erlang/otp#6339).
        """
        stuck = self.runtime.stuck
        if child.id not in stuck:
            return True
        self.busy_with = child
        limit = self.runtime.clock.monotonic() + start_limit(child.spec)
        free = await self.until(lambda: child.id not in stuck or self.halted() or child.aborted, lambda: limit)
        self.busy_with = None
        if free and child.id not in stuck:
            return True
        child.last_reason = StartFailed("StillStopping", "the incarnation before it has not ended")
        return False

    async def end_one(self, child: ChildRecord, reason: Reason, fate: Fate) -> bool:
        """Ask a child to stop, give it its time, kill it, and wait until nothing of it is left. False: it is stuck."""
        ended = await self._end_incarnation(child, reason, fate)
        if ended and fate == "final":
            await release(child.spec, self.runtime.cell)
        return ended

    async def _end_incarnation(self, child: ChildRecord, reason: Reason, fate: Fate) -> bool:
        incarnation = child.incarnation
        if incarnation is None:
            child.exit = None
            return True
        clock = self.runtime.clock
        child.leave(fate)
        self.busy_with = child
        asked_by_it = self.runtime.asking.get(child.cell.serving_task)
        if asked_by_it is not None and asked_by_it.supervisor.waits_for(child.cell.serving_task):
            asked_by_it.refuse(WAITS_FOR_ASKER)

        def over() -> bool:
            return child.incarnation is not incarnation

        limit = stop_limit(child.spec)
        asked = clock.monotonic()

        def patience() -> float | None:
            """Until when to wait; both the whole tree's deadline and a kill of this supervisor may shorten it."""
            by = None if limit is None else asked + limit
            if self.hurry:
                return asked
            if self.runtime.stop_by is not None:
                return self.runtime.stop_by if by is None else min(by, self.runtime.stop_by)
            return by

        until = patience()
        patient = until is None or until > asked
        if patient:
            incarnation.stop(reason, None if until is None else until - asked)
        if not await self.until(over, patience):
            if patient:
                report_lifecycle(child, "overdue", stack=incarnation.where())
            incarnation.kill(Killed())
            killed = clock.monotonic()
            grace = kill_grace(child.spec)
            if not await self.until(over, lambda: None if grace is None else killed + grace):
                self.busy_with = None
                child.resume = fate == "again"
                child.report_stuck()
                return False
        self.busy_with = None
        child.exit = None
        return True

    def _make(self, child: ChildRecord) -> Incarnation:
        if isinstance(child.spec, SupervisorSpec):
            return self._make_supervisor(child)
        return maker_of(child.spec)(child.spec, child.cell, child.cell.incarnation, child, self.runtime)
