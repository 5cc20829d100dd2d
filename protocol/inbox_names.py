"""The names of files in the inbox: what they say, and which of them are nobody's yet.

A file that was dropped keeps its name; its first folder below the inbox may give its priority. One that ``submit``
puts there is called ``@ID-PRIORITY@NAME``: the same id twice is one job.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from protocol.messages.common import PRIORITIES, Priority

UNFINISHED: Final = (".tmp", ".part", "~")
"""Endings of names under which a producer writes before it renames."""

LONGEST: Final = 255
"""Bytes of a name that the kernel takes."""

_LINES: dict[str, Priority] = {line: line for line in PRIORITIES}
_SUBMITTED: Final = re.compile(r"@([0-9A-Za-z]{26})-(high|normal|low)@(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Named:
    """What the place and the name of a file in the inbox say."""

    file: str
    """The name that the user gave it; bytes that are not UTF-8 written as ``\\xNN``, so that it can be shown."""
    priority: Priority
    submit_id: str | None
    """Set if ``submit`` put it there, which renames it into place when it is whole."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name belongs to its producer and is never touched."""
    return name.startswith(".") or name.endswith(UNFINISHED)


def read_name(path: PurePath) -> Named:
    """Read a path relative to the inbox: ``@ID-PRIORITY@NAME``, or ``high/``, ``normal/``, ``low/`` as first folder."""
    submitted = _SUBMITTED.fullmatch(path.name)
    if submitted:
        submit_id, priority, name = submitted.groups()
    else:
        submit_id, priority, name = None, path.parts[0] if len(path.parts) > 1 else "normal", path.name
    return Named(printable(name), _LINES.get(priority, "normal"), submit_id)


def submitted_name(name: str, id: str, priority: Priority) -> str:
    """Return the name for a file that is submitted; a long one loses the end of its stem, so that a hidden copy of it
    still fits."""
    prefix = f"@{id}-{priority}@"
    room = LONGEST - len(os.fsencode(f".{prefix}.tmp"))
    raw = os.fsencode(name)
    if len(raw) <= room:
        return prefix + name
    suffix = os.fsencode(Path(name).suffix)[:room]
    # A character cut in two is dropped; bytes that were never UTF-8 stay as they are.
    stem = raw[: room - len(suffix)].decode("utf-8", "surrogateescape").rstrip("".join(map(chr, range(0xDC80, 0xDD00))))
    return prefix + stem + os.fsdecode(suffix)


def printable(name: str) -> str:
    """Return a file name as text that any encoder takes: a byte that is not UTF-8 as ``\\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
