"""Time as the library and its actors see it: one object, so that a test can own it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import anyio

from protocol.backend import TimerHandle, current_backend


class Clock(ABC):
    """A monotonic clock, a calendar, and timers on the monotonic one. Seconds are floats throughout."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""

    @abstractmethod
    def now(self) -> datetime:
        """The time of day, aware, in UTC."""

    @abstractmethod
    def local(self) -> datetime:
        """The time of day, aware, in the local time zone."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds of this clock."""

    @abstractmethod
    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        """Call back on the event loop after so many seconds of this clock. What the callback raises is only logged."""

    def left_alone(self) -> AbstractContextManager[None]:
        """For the time in which a tree is closed: a clock that waits to be moved has to go by itself."""
        return nullcontext()


class SystemClock(Clock):
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)  # pyright: ignore[reportAssignmentType]  # it is called alike

    def now(self) -> datetime:
        return datetime.now(UTC)

    def local(self) -> datetime:
        return datetime.now().astimezone()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        return current_backend().call_later(seconds, callback)
