"""The end of one child as its supervisor sees it: asked, past its limit killed, past the grace after that stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.limits import kill_grace, stop_limit
from supervisor.reasons import Killed, Reason
from supervisor.reports import report_lifecycle

if TYPE_CHECKING:
    from supervisor.record import ChildRecord, Fate
    from supervisor.steps import Steps

WAITS_FOR_ASKER = "waits for the very actor that asks"


class Ending:
    """Asks a child to stop; :meth:`push` is what follows whenever :meth:`due` has passed. Waiting is the caller's."""

    __slots__ = ("_asked", "_by", "_fate", "_incarnation", "_killed", "_limit", "child")

    def __init__(self, by: Steps, child: ChildRecord, reason: Reason, fate: Fate) -> None:
        self.child = child
        self._by = by
        self._fate = fate
        self._incarnation = child.incarnation
        self._limit = stop_limit(child.spec)
        self._asked = by.runtime.clock.monotonic()
        self._killed: float | None = None
        if self._incarnation is None:
            return
        child.leave(fate)
        by.busy.add(child)
        asked_by_it = by.runtime.asking.get(child.cell.serving_task)
        if asked_by_it is not None and asked_by_it.supervisor.waits_for(child.cell.serving_task):
            asked_by_it.refuse(WAITS_FOR_ASKER)
        until = self.due()
        if until is None or until > self._asked:
            self._incarnation.stop(reason)
        else:
            self._kill()

    def over(self) -> bool:
        """Whether nothing of it is left."""
        return self._incarnation is None or self.child.incarnation is not self._incarnation

    def due(self) -> float | None:
        """Until when to wait. The whole tree's deadline, or a kill of the supervisor, may shorten it at any time."""
        if self._killed is not None:
            grace = kill_grace(self.child.spec)
            return None if grace is None else self._killed + grace
        if self._by.hurry:
            return self._asked
        by, shortened = None if self._limit is None else self._asked + self._limit, self._by.runtime.stop_by
        return by if shortened is None else shortened if by is None else min(by, shortened)

    def push(self) -> bool:
        """Its time is up: kill it. False: it had been killed before, and is stuck."""
        assert self._incarnation is not None
        if self._killed is None:
            report_lifecycle(self.child, "overdue", stack=self._incarnation.where())
            self._kill()
            return True
        self.child.resume = self._fate == "again"
        self.child.report_stuck()
        return False

    def close(self) -> None:
        """It is over, or nobody waits for it any more."""
        self._by.busy.discard(self.child)
        if self.over():
            self.child.exit = None

    def _kill(self) -> None:
        assert self._incarnation is not None
        self._incarnation.kill(Killed())
        self._killed = self._by.runtime.clock.monotonic()
