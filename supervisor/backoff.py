"""Growing delays between restarts. OTP has none (erlang/otp PR 1287); the formula is Pekko's ``BackoffSupervisor``."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from supervisor.errors import SpecError


@dataclass(frozen=True, slots=True)
class Backoff:
    """``min(most, first * factor**n) * (1 + random * jitter)`` seconds before attempt ``n``, counted from 0.

    ``n`` returns to 0 once a child has run for ``reset_after`` seconds; a successful start alone resets nothing. What
    counts is the time from its ack to its crash: not how long it then takes to end, nor the silence for which its
    liveness limit ended it.

    Raises:
        SpecError: a value that makes no sense.
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.1
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        for name in ("first", "most", "reset_after"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SpecError(f"backoff: {name} must be a positive number of seconds, not {value!r}")
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise SpecError(f"backoff: factor must be at least 1, not {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise SpecError(f"backoff: jitter must lie between 0 and 1, not {self.jitter!r}")
        if self.most < self.first:
            raise SpecError(f"backoff: most ({self.most:g} s) is below first ({self.first:g} s)")

    def delay(self, attempt: int, chance: random.Random) -> float:
        """Return the seconds to wait before restart attempt ``attempt`` (from 0), with jitter drawn from ``chance``."""
        return self._base(attempt) * (1 + chance.random() * self.jitter)

    def longest_spread(self, restarts: int) -> float:
        """Return the seconds that ``restarts`` delays in a row take at most, for a child that fails at once."""
        return sum(self._base(attempt) for attempt in range(restarts)) * (1 + self.jitter)

    def _base(self, attempt: int) -> float:
        # The exponent is bounded before it is used: factor**n overflows long after most was reached.
        if self.factor > 1 and attempt > math.log(self.most / self.first, self.factor):
            return self.most
        return min(self.most, self.first * self.factor**attempt)
