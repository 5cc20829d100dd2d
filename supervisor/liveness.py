"""Whether a child makes progress: by its own beats, per phase, on the clock of the tree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.backend import current_backend
from supervisor.reasons import Reason, Timeout

if TYPE_CHECKING:
    from protocol.backend import TimerHandle
    from supervisor.clock import Clock


LATE = 1.0
"""Seconds after which a look has come too late to judge."""


class Liveness:
    """Ends an incarnation that has not beaten for the limit of its phase.

    A look that comes late says that the measuring program itself stood still (it was stopped, its machine was, or its
    event loop was blocked), while the beats waited unread; then the limit begins anew.

    Args:
        clock: measures the limits.
        limit: seconds between beats where a beat names no limit of its own.
        kill: called once, on the event loop, with the :class:`~supervisor.reasons.Timeout` that says where it hangs.
    """

    def __init__(self, clock: Clock, limit: float, kill: Callable[[Reason], None]) -> None:
        self._clock = clock
        self._default = limit
        self._kill = kill
        self._backend = current_backend()
        self._timer: TimerHandle | None = None
        self._look_at = math.inf
        self._measuring = False
        self._beat = ("started", limit, 0.0)  # (phase, limit, due): replaced whole, so a reader never sees half of it

    def start(self) -> None:
        """Measure from now on."""
        self._measuring = True
        self._beat = ("started", self._default, self._clock.monotonic() + self._default)
        self._arm()

    def stop(self) -> None:
        """Measure no more. Harmless twice."""
        self._measuring = False
        self._disarm()

    def beat(self, phase: str, limit: float | None = None) -> None:
        """There is progress. Callable from any thread; ``limit`` may be infinite."""
        limit = self._default if limit is None else limit
        due = self._clock.monotonic() + limit
        self._beat = (phase, limit, due)
        if due < self._look_at and self._measuring:  # a shorter phase: the timer that is set would look too late
            self._backend.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        """Set the timer to the moment at which the newest beat is due. Later beats leave it alone: it looks again."""
        self._disarm()
        due = self._beat[2]
        if self._measuring and due < math.inf:
            self._look_at = due
            self._timer = self._clock.call_later(max(0.0, due - self._clock.monotonic()), self._look)

    def _disarm(self) -> None:
        self._look_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        phase, limit, due = self._beat
        now = self._clock.monotonic()
        if now - self._look_at > LATE:
            self._beat = (phase, limit, max(due, now + limit))
            self._arm()
        elif now < due:
            self._arm()
        else:
            self.stop()
            self._kill(Timeout(f"no progress for {limit:g} s in phase {phase!r}", now - due + limit))
