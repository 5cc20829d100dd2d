"""Whether a child makes progress: by its own beats, per phase, on the clock of the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from supervisor.reasons import Reason, Timeout

if TYPE_CHECKING:
    from supervisor.backend import TimerHandle
    from supervisor.clock import Clock

LOOK_EVERY = 1.0
"""Seconds between two looks, at most. A beat may come from another thread, which cannot set a timer of the loop."""


class Liveness:
    """Ends an incarnation that has not beaten for the limit of its phase.

    Args:
        clock: measures the limits.
        limit: seconds between beats where a beat names no limit of its own.
        kill: called once, on the event loop, with the :class:`~supervisor.reasons.Timeout` that says where it hangs.
    """

    def __init__(self, clock: Clock, limit: float, kill: Callable[[Reason], None]) -> None:
        self._clock = clock
        self._default = limit
        self._kill = kill
        self._timer: TimerHandle | None = None
        self._beat = ("started", limit, 0.0)  # (phase, limit, due): replaced whole, so a reader never sees half of it

    def start(self) -> None:
        """Measure from now on."""
        self.beat("started")
        self._look()

    def stop(self) -> None:
        """Measure no more. Harmless twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def beat(self, phase: str, limit: float | None = None) -> None:
        """There is progress. Callable from any thread; ``limit`` may be infinite."""
        limit = self._default if limit is None else limit
        self._beat = (phase, limit, self._clock.monotonic() + limit)

    def _look(self) -> None:
        self._timer = None
        phase, limit, due = self._beat
        left = due - self._clock.monotonic()
        if left > 0:
            self._timer = self._clock.call_later(min(left, LOOK_EVERY), self._look)
        else:
            self._kill(Timeout(f"no progress for {limit:g} s in phase {phase!r}"))
