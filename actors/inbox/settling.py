"""Which files of the inbox have stood still for long enough. Pure: time and what was seen are handed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Generic, TypeVar

from actors.inbox.validation import Stamp
from protocol.messages.common import PRIORITIES, Priority

UNFINISHED: Final = (".tmp", ".part", "~")
"""Endings of names under which a producer writes before it renames."""

_SUBMITTED: Final = re.compile(r"@([0-9A-Za-z]{26})-(high|normal|low)@(.+)", re.DOTALL)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name belongs to its producer and is never touched."""
    return name.startswith(".") or name.endswith(UNFINISHED)


@dataclass(frozen=True, slots=True)
class Named:
    """What the place and the name of a file in the inbox say."""

    file: str
    """The name that the user gave it; bytes that are not UTF-8 written as ``\\xNN``, so that it can be shown."""
    priority: Priority
    submit_id: str | None
    """Set if ``submit`` put it there, which renames it into place when it is whole."""


def read_name(path: PurePath) -> Named:
    """Read a path relative to the inbox: ``@ID-PRIORITY@NAME``, or ``high/``, ``normal/``, ``low/`` as first folder."""
    submitted = _SUBMITTED.fullmatch(path.name)
    if submitted:
        submit_id, priority, name = submitted.groups()
    else:
        submit_id, priority, name = None, path.parts[0] if len(path.parts) > 1 else "normal", path.name
    line: Priority = next((known for known in PRIORITIES if known == priority), "normal")
    return Named(shown(name), line, submit_id)


def shown(name: str) -> str:
    """Return a file name as text that any encoder takes: a byte that is not UTF-8 as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
