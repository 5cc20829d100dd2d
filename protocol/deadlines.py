"""The time limits of calls: all of one tree, or of one connection, on one timer."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Protocol

from protocol.backend import TimerHandle

_COMPACT_AT = 256
"""Up to so many calls, done ones among them, nothing is tidied up."""


class Expiring(Protocol):
    """A call that ends at its deadline at the latest."""

    deadline: float
    """In seconds, on the clock of its :class:`Deadlines`."""
    done: bool

    def expire(self) -> None:
        """End it: its deadline has come. It is done at once, whatever else that leads to."""


class Deadlines:
    """Calls by deadline. A timer of the event loop for each would cost a call more than all else that it does.

    Nearly every call is done long before its deadline, and most have a deadline later than all before them, since they
    have the same time limit. So those stand in a queue, to which adding is all but free; a heap takes the others. Being
    done is not told here: such calls leave once they come first, or when there are twice as many as were left the last
    time. The timer is set for the earliest deadline only.

    Args:
        monotonic: the clock, in seconds.
        call_later: sets a timer on it.
    """

    __slots__ = ("_call_later", "_compact_at", "_heap", "_order", "_rising", "_timer", "_wakes_at", "monotonic")

    def __init__(
        self, monotonic: Callable[[], float], call_later: Callable[[float, Callable[[], None]], TimerHandle]
    ) -> None:
        self.monotonic = monotonic
        self._call_later = call_later
        self._rising: deque[Expiring] = deque()
        self._heap: list[tuple[float, int, Expiring]] = []
        self._order = itertools.count()
        self._compact_at = _COMPACT_AT
        self._timer: TimerHandle | None = None
        self._wakes_at = float("inf")

    def __len__(self) -> int:
        """How many calls are kept, with those that are done already."""
        return len(self._rising) + len(self._heap)

    def add(self, call: Expiring) -> None:
        """Expire the call at its deadline unless it is done by then.

        Raises:
            ValueError: the deadline is not a number, before or after which nothing would ever be.
        """
        deadline = call.deadline
        rising = self._rising
        while rising and rising[0].done:
            rising.popleft()
        if rising and rising[-1].deadline <= deadline:
            rising.append(call)
        elif deadline != deadline:
            raise ValueError("the time limit of a call is not a number")
        elif not rising:
            rising.append(call)
        else:
            heapq.heappush(self._heap, (deadline, next(self._order), call))
        if len(rising) > self._compact_at or len(self._heap) > self._compact_at:
            self._compact()
        if deadline < self._wakes_at:
            self._wake_at(deadline)

    def close(self) -> None:
        """Expire nothing any more."""
        self._rising.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _compact(self) -> None:
        self._rising = deque([call for call in self._rising if not call.done])
        self._heap[:] = [entry for entry in self._heap if not entry[2].done]
        heapq.heapify(self._heap)
        self._compact_at = max(_COMPACT_AT, 2 * len(self))

    def _wake_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = deadline
        self._timer = self._call_later(max(0.0, deadline - self.monotonic()), self._look)

    def _look(self) -> None:
        self._timer, self._wakes_at = None, float("-inf")  # an expiry may make calls: no timer before the look is over
        try:
            while (call := self._earliest()) is not None and call.deadline <= self.monotonic():
                call.expire()
        finally:
            self._wakes_at = float("inf")
            if (call := self._earliest()) is not None:
                self._wake_at(call.deadline)

    def _earliest(self) -> Expiring | None:
        """Return the call that is not done and ends first; those that are done, before it, are let go."""
        rising, heap = self._rising, self._heap
        while rising and rising[0].done:
            rising.popleft()
        while heap and heap[0][2].done:
            heapq.heappop(heap)
        if rising and not (heap and heap[0][0] < rising[0].deadline):
            return rising[0]
        return heap[0][2] if heap else None
