"""Which files of the inbox have stood still for long enough. Pure: time and what was seen are handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from actors.inbox.validation import Stamp

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Settled(Generic[Key]):
    """The outcome of one look."""

    ready: tuple[Key, ...]
    """What has stood still for long enough, oldest first."""
    again_in: float | None
    """Seconds until the next may have, or None if nothing is waited for."""


class Settling(Generic[Key]):
    """Remembers since when each file has stood in its present state.

    Time is counted from the first look that saw the state, never from the file's own time, which its producer may set
    to anything and which a changed clock makes worthless.
    """

    def __init__(self) -> None:
        self._since: dict[Key, tuple[Stamp, float]] = {}

    def look(self, now: float, seen: Mapping[Key, tuple[Stamp, float]]) -> Settled[Key]:
        """Take in what a scan saw.

        Args:
            now: monotonic time of the scan's begin, in seconds.
            seen: for each file its state, and for how many seconds it has to stand still.
        """
        before, self._since = self._since, {}
        ready: list[Key] = []
        waits: list[float] = []
        for key, (stamp, settle) in seen.items():
            known = before.get(key)
            since = known[1] if known is not None and known[0] == stamp else now
            self._since[key] = (stamp, since)
            left = since + settle - now
            if left > 0:
                waits.append(left)
            else:
                ready.append(key)
        ready.sort(key=lambda key: (seen[key][0].mtime_ns, str(key)))
        return Settled(tuple(ready), min(waits, default=None))

    def forget(self, key: Key) -> None:
        """Begin to count anew for this file: it changed although it had stood still."""
        self._since.pop(key, None)
