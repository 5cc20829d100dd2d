"""The time limits of calls: all of one tree, or of one connection, on one timer."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Protocol

from protocol.backend import TimerHandle

_COMPACT_AT = 128
"""Up to so many settled calls the heap is left alone."""


class Expiring(Protocol):
    """A call that ends at its deadline at the latest."""

    deadline: float
    """In seconds, on the clock of its :class:`Deadlines`."""
    done: bool

    def expire(self) -> None:
        """End it: its deadline has come."""


class Deadlines:
    """Calls by deadline. A timer of the event loop for each would cost a call more than all else that it does.

    Nearly every call is settled long before its deadline, so settling only counts: a settled call leaves the heap when
    its time comes, or when half of the heap is such calls. The timer is set for the earliest deadline only.

    Args:
        monotonic: the clock, in seconds.
        call_later: sets a timer on it.
    """

    __slots__ = ("_call_later", "_heap", "_order", "_settled", "_timer", "_wakes_at", "monotonic")

    def __init__(
        self, monotonic: Callable[[], float], call_later: Callable[[float, Callable[[], None]], TimerHandle]
    ) -> None:
        self.monotonic = monotonic
        self._call_later = call_later
        self._heap: list[tuple[float, int, Expiring]] = []
        self._order = itertools.count()
        self._settled = 0
        self._timer: TimerHandle | None = None
        self._wakes_at = float("inf")

    def add(self, call: Expiring) -> None:
        """Expire the call at its deadline unless it is done by then."""
        heapq.heappush(self._heap, (call.deadline, next(self._order), call))
        if call.deadline < self._wakes_at:
            self._wake_at(call.deadline)

    def settled(self) -> None:
        """One of the calls is done before its time."""
        self._settled += 1
        if self._settled > _COMPACT_AT and self._settled * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._settled = 0

    def close(self) -> None:
        """Expire nothing any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = deadline
        self._timer = self._call_later(max(0.0, deadline - self.monotonic()), self._look)

    def _look(self) -> None:
        self._timer, self._wakes_at = None, float("-inf")  # an expiry may make calls: no timer before the look is over
        try:
            while self._heap:
                deadline, _, call = self._heap[0]
                if call.done:
                    self._settled -= 1
                elif deadline > self.monotonic():
                    break
                heapq.heappop(self._heap)
                if not call.done:
                    call.expire()
        finally:
            self._wakes_at = float("inf")
            if self._heap:
                self._wake_at(self._heap[0][0])
