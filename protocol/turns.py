"""Whose turn it is: what one client sends, however much it is, does not keep the answers of the others waiting."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

from protocol.backend import Backend

TURN: Final = 0.0001
"""Seconds for the messages of one client in a row, while others speak too."""

ALONE: Final = 0.002
"""The same while nobody else speaks: who begins to waits no longer than this."""

PAUSE: Final = 0.001
"""Seconds from the end of a turn to the next one of those that want more, all together, while others are brief: so the
loop is at rest when one of these speaks. Among those that all want more it would only be lost."""

LATELY: Final = 0.05
"""So many seconds ago, at most, somebody else has spoken."""


class Turns:
    """Of all clients of one server."""

    def __init__(self) -> None:
        self._speaker: object = None
        self._changed = -math.inf
        self._brief = -math.inf
        self._waiting: deque[Callable[[], None]] = deque()

    def begin(self, speaker: object) -> float:
        """Return when the turn of this speaker is over, on the clock of ``time.perf_counter``."""
        now = perf_counter()
        if speaker is not self._speaker:
            self._speaker = speaker
            self._changed = now
        return now + (TURN if now - self._changed < LATELY else ALONE)

    @property
    def contended(self) -> bool:
        """Whether more than one has spoken lately."""
        return perf_counter() - self._changed < LATELY

    @property
    def pause(self) -> float:
        """Seconds to the next turn of those that want more."""
        return PAUSE if self.contended and perf_counter() - self._brief < LATELY else 0.0

    def was_brief(self) -> None:
        """Somebody, who has not wanted more lately, has said in one turn all that there was to say."""
        self._brief = perf_counter()

    def put_off(self, backend: Backend, go_on: Callable[[], None]) -> None:
        """Call back when the next turn comes: soon, or after all others that were put off, one at a time."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            self._call_next(backend)

    def _call_next(self, backend: Backend) -> None:
        if pause := self.pause:
            backend.call_later(pause, partial(self._next, backend))
        else:
            backend.call_soon(partial(self._next, backend))

    def _next(self, backend: Backend) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            self._call_next(backend)
        go_on()
