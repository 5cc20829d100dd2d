"""The time limits of calls: all of one tree on one timer."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocol.backend import TimerHandle
    from supervisor.clock import Clock
    from supervisor.reply import Pending

_COMPACT_AT = 128
"""Up to so many settled calls the heap is left alone."""


class Deadlines:
    """Calls by deadline. A timer of the event loop for each would cost a call more than all else that it does.

    Nearly every call is settled long before its deadline, so settling only counts: a settled call leaves the heap when
    its time comes, or when half of the heap is such calls. The timer is set for the earliest deadline only.
    """

    __slots__ = ("_heap", "_order", "_settled", "_timer", "_wakes_at", "clock")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Pending[Any]]] = []
        self._order = itertools.count()
        self._settled = 0
        self._timer: TimerHandle | None = None
        self._wakes_at = float("inf")

    def add(self, pending: Pending[Any]) -> None:
        """Expire the call at its deadline unless it is settled by then."""
        heapq.heappush(self._heap, (pending.deadline, next(self._order), pending))
        if pending.deadline < self._wakes_at:
            self._wake_at(pending.deadline)

    def settled(self) -> None:
        """One of the calls has been settled before its time."""
        self._settled += 1
        if self._settled > _COMPACT_AT and self._settled * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._settled = 0

    def _wake_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = deadline
        self._timer = self.clock.call_later(max(0.0, deadline - self.clock.monotonic()), self._look)

    def _look(self) -> None:
        self._timer, self._wakes_at = None, float("-inf")  # an expiry may make calls: no timer before the look is over
        while self._heap:
            deadline, _, pending = self._heap[0]
            if pending.done:
                self._settled -= 1
            elif deadline > self.clock.monotonic():
                self._wake_at(deadline)
                return
            heapq.heappop(self._heap)
            if not pending.done:
                pending.expire()
        self._wakes_at = float("inf")
