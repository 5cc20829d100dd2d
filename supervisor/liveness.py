"""Whether a child makes progress, by its own beats and the daemon's clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.backend import TimerHandle
    from supervisor.clock import Clock


class Liveness:
    """Calls ``failed`` once when no beat has come for the limit of the phase. Idle until the first :meth:`beat`.

    Args:
        default: seconds between beats where a beat names no limit of its own.
        failed: told the phase and its limit.
    """

    def __init__(self, default: float, clock: Clock, failed: Callable[[str, float], None]) -> None:
        self._default = default
        self._clock = clock
        self._failed = failed
        self._phase = ""
        self._limit = default
        self._due = math.inf
        self._timer: TimerHandle | None = None
        self._stopped = False

    def beat(self, phase: str, limit: float | None = None) -> None:
        """There is progress. ``limit`` may be infinite: this phase takes as long as it takes."""
        if self._stopped:
            return
        self._phase = phase
        self._limit = self._default if limit is None else limit
        self._due = self._clock.monotonic() + self._limit
        if self._timer is not None and self._wakes_at > self._due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._arm()

    def stop(self) -> None:
        """Measure no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        """Set one timer; beats only move the moment that it looks at, which is cheaper than a timer for each."""
        if math.isfinite(self._due):
            self._wakes_at = self._due
            self._timer = self._clock.call_later(max(0.0, self._due - self._clock.monotonic()), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._clock.monotonic() < self._due:
            self._arm()
        else:
            self._stopped = True
            self._failed(self._phase, self._limit)
