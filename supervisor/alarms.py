"""Times at which a tree has to look again: limits of starts and ends, and restarts that are due, all on one timer.

Nearly every limit is taken back long before it is reached; a timer of the event loop for each would cost more than the
start that it limits.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.deadlines import Deadlines
from supervisor.clock import Clock


class Alarm:
    """One of the times. Made by :meth:`Alarms.at`."""

    __slots__ = ("_callback", "deadline", "done")

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.done = False
        """Whether its time has come, or it was cancelled."""
        self._callback: Callable[[], None] | None = callback

    def expire(self) -> None:
        """The time has come."""
        callback, self._callback = self._callback, None
        self.done = True
        if callback is not None:
            callback()

    def cancel(self) -> None:
        """Do not call back any more. Harmless twice, or afterwards."""
        if not self.done:
            self.done = True
            self._callback = None  # it is kept for a while, and should not keep the dead


class Alarms:
    """Calls back at times of the tree's clock. What a callback raises is only logged."""

    __slots__ = ("deadlines",)

    def __init__(self, clock: Clock) -> None:
        self.deadlines = Deadlines(clock.monotonic, clock.call_later)

    def at(self, moment: float, callback: Callable[[], None]) -> Alarm:
        """Call back at this time on the monotonic clock, or at once if it has passed."""
        alarm = Alarm(moment, callback)
        self.deadlines.add(alarm)
        return alarm

    def close(self) -> None:
        """Call back no more: the tree has ended."""
        self.deadlines.close()
