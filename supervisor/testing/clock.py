"""A clock that stands still until the test moves it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from protocol.backend import TimerHandle, current_backend
from supervisor.clock import Clock
from supervisor.testing.watching import settle

ALONE_RATE: Final = 5.0
"""Seconds that pass in a real one while the clock is left alone: what is real beside it, a process, can end in time."""

ALONE_MOST: Final = 2.0
"""Real seconds, at most, from one timer to the next while the clock is left alone."""


class _VirtualTimer:
    __slots__ = ("callback", "due", "order")

    def __init__(self, due: float, order: int, callback: Callable[[], None]) -> None:
        self.due = due
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: _VirtualTimer) -> bool:
        return (self.due, self.order) < (other.due, other.order)

    def cancel(self) -> None:
        self.callback = None


class VirtualClock(Clock):
    """Moves only by :meth:`advance`. Sleeps, call timeouts, backoff and shutdown limits of a tree all follow it.

    While a tree of it is closed it goes by itself, from timer to timer, since the test that would move it waits for
    that: one that fails with an actor that does not end is over in seconds, and says so.

    Example::

        clock = VirtualClock()
        async with open_tree(spec, clock=clock) as tree:
            await clock.advance(3600)
            assert tree.view().uptime_s == 3600

    Args:
        start: the time of day at the beginning, aware.
        zone: the local time zone.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), zone: tzinfo = UTC) -> None:
        self._start = start
        self._zone = zone
        self._now = 0.0
        self._timers: list[_VirtualTimer] = []
        self._order = itertools.count()
        self._alone = 0
        self._next: TimerHandle | None = None
        """While it is left alone: the real timer of its next step."""

    def monotonic(self) -> float:
        return self._now

    def now(self) -> datetime:
        return (self._start + timedelta(seconds=self._now)).astimezone(UTC)

    def local(self) -> datetime:
        return self.now().astimezone(self._zone)

    async def sleep(self, seconds: float) -> None:
        backend = current_backend()
        waiter = backend.waiter()
        timer = self.call_later(seconds, lambda: backend.wake(waiter))
        try:
            await waiter
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _VirtualTimer:
        timer = _VirtualTimer(self._now + max(0.0, seconds), next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    async def settle(self) -> None:
        """Let every task of the event loop run until all of them wait."""
        await settle()

    async def stall(self, seconds: float) -> None:
        """Let so many seconds pass at once, as if the program had been stopped: what came due fires late."""
        await self.settle()
        self._now += seconds
        await self.advance(0)

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass: fire what is due, in order, and let every task run until all wait again."""
        self._stand_still()  # somebody moves it
        end = self._now + seconds
        await self.settle()
        while self._timers and self._timers[0].due <= end:
            timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._now = max(self._now, timer.due)
                timer.callback()
                await self.settle()
        self._now = max(self._now, end)

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Within the block it goes by itself, at ``ALONE_RATE``, faster where nothing is due for long, until somebody
        moves it."""
        self._alone += 1
        if self._next is None:
            self._next = current_backend().call_later(self._until_next(), self._step)
        try:
            yield
        finally:
            self._alone -= 1
            if not self._alone:
                self._stand_still()

    def _stand_still(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _until_next(self) -> float:
        """The real seconds until the next step of a clock that is left alone."""
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return min(ALONE_MOST, (self._timers[0].due - self._now) / ALONE_RATE) if self._timers else ALONE_MOST

    def _step(self) -> None:
        """Fire the next timer, and look at the one after it. One that is never due is left."""
        self._next = None
        if self._timers and self._timers[0].due < float("inf"):
            timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._now = max(self._now, timer.due)
                timer.callback()
        self._next = current_backend().call_later(self._until_next(), self._step)
