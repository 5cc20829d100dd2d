"""The two steps that all the work of a supervisor is made of: start one child, end one child, within its limits."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from supervisor.ending import Ending
from supervisor.incarnation import Incarnation, maker_of, release
from supervisor.limits import start_limit
from supervisor.reasons import Reason, Shutdown, StartFailed
from supervisor.record import ChildRecord, Fate
from supervisor.spec import SupervisorSpec

if TYPE_CHECKING:
    from protocol.backend import Waiter
    from supervisor.mailbox import Cell
    from supervisor.runtime import TreeRuntime


TERMINATED = "terminated on request"


class Steps:
    """Waiting, starting and ending, for the one task of a supervisor.

    Whatever happens only wakes the task, which then looks at what is; so nothing is lost, wherever it was waiting.
    """

    def __init__(
        self, runtime: TreeRuntime, make_supervisor: Callable[[ChildRecord], Incarnation], group: Cell | None
    ) -> None:
        self.runtime = runtime
        self.stopping: Reason | None = None
        """Set once the supervisor has to stop; every wait for a start then ends at once."""
        self.hurry = False
        """Set once it was killed: children are not asked any more."""
        self.busy: set[ChildRecord] = set()
        """The children whose start or end is being waited for: one, or all where they are ended together."""
        self.exits: deque[ChildRecord] = deque()
        """Children of which an incarnation has ended, until the supervisor comes to them."""
        self._make_supervisor = make_supervisor
        self._group = group
        """Stands for the children if they fall as one."""
        self._waiter: Waiter | None = None

    def waits_for(self, task: object) -> bool:
        """Whether the present step waits for the actor that this task serves, or for one above it."""
        for child in self.busy:
            below = self.runtime.supervisors.get(child.id)
            if child.cell.serving_task is task or (below is not None and below.waits_for(task)):
                return True
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
        if child.place is not None:
            child.open_place()
            return True
        child.cell.incarnation += 1
        child.begin(self._make(child), retried=retried)
        assert child.incarnation is not None
        child.incarnation.start()
        self.busy.add(child)
        limit = self.runtime.clock.monotonic() + start_limit(child.spec)
        settled = await self.until(
            lambda: child.started or not child.alive or self.halted() or child.aborted, lambda: limit
        )
        self.busy.discard(child)
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
        self.busy.add(child)
        limit = self.runtime.clock.monotonic() + start_limit(child.spec)
        free = await self.until(lambda: child.id not in stuck or self.halted() or child.aborted, lambda: limit)
        self.busy.discard(child)
        if free and child.id not in stuck:
            return True
        child.last_reason = StartFailed("StillStopping", "the incarnation before it has not ended")
        return False

    async def end_one(self, child: ChildRecord, reason: Reason, fate: Fate) -> bool:
        """Ask a child to stop, give it its time, kill it, and wait until nothing of it is left. False: it is stuck."""
        ending = Ending(self, child, reason, fate)
        while not await self.until(ending.over, ending.due):
            if not ending.push():
                break
        return await self._close(ending, fate)

    async def end_together(
        self, children: Iterable[ChildRecord], reason: Reason, fate: Fate, gone: Callable[[ChildRecord], None]
    ) -> None:
        """Ask all of them to stop at once, and wait for each within its own limit; ``gone`` is told of each that has
        ended or is stuck. One heap of times and one look at each exit: the cost of a child is the same among many."""
        endings = {child: Ending(self, child, reason, fate) for child in children}
        settled = [endings.pop(child) for child in list(endings) if endings[child].over()]
        due: list[tuple[float, int, Ending]] = []
        order = itertools.count()
        terms: object = None

        def expect(ending: Ending) -> None:
            if (by := ending.due()) is not None:
                heapq.heappush(due, (by, next(order), ending))

        while endings or settled:
            for ending in settled:
                await self._close(ending, fate)
                gone(ending.child)
            settled.clear()
            while self.exits:
                child = self.exits.popleft()
                if child in endings and endings[child].over():
                    settled.append(endings.pop(child))
            if terms != (terms := (self.hurry, self.runtime.stop_by)):  # either may shorten every limit
                due.clear()
                for ending in endings.values():
                    expect(ending)
            now = self.runtime.clock.monotonic()
            while due and due[0][0] <= now:
                ending = heapq.heappop(due)[2]
                if ending.over():
                    continue
                if ending.push():
                    expect(ending)
                else:
                    settled.append(endings.pop(ending.child))
            if endings and not settled:
                await self.pause(due[0][0] if due else None)

    async def _close(self, ending: Ending, fate: Fate) -> bool:
        ending.close()
        if ending.over() and fate == "final":
            await release(ending.child.spec, self.runtime.cell)
        return ending.over()

    def _make(self, child: ChildRecord) -> Incarnation:
        if isinstance(child.spec, SupervisorSpec):
            return self._make_supervisor(child)
        return maker_of(child.spec, self._group)(child.spec, child.cell, child.cell.incarnation, child, self.runtime)
