"""The restart-intensity window of a supervisor: OTP's ``supervisor:add_restart/3`` on a float clock."""

from __future__ import annotations

from collections import deque


class Intensity:
    """At most ``limit`` restarts in any ``period`` seconds, over all children of one supervisor together.

    The edge is inclusive, as in OTP: a restart exactly ``period`` seconds old still counts. OTP counts in whole seconds
    and so may stretch a period by almost one; this window is exact.
    """

    __slots__ = ("_times", "limit", "period")

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self.period = period
        self._times: deque[float] = deque()

    def add(self, now: float) -> bool:
        """Count a restart at ``now``. False: this one is over the limit, and the supervisor has to give up."""
        while self._times and self._times[0] < now - self.period:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self.limit

    def clear(self) -> None:
        """Forget all restarts: after a cool-down a child begins with a full budget."""
        self._times.clear()
