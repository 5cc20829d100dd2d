"""Putting a file into the inbox so that it is there whole or not at all, under a name that carries an id.

It is written aside under a name that the inbox does not look at, made durable, and renamed. Killed before the rename:
only the hidden file is left, and no job. Killed after it: the daemon takes the file in, now or at its next start.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from protocol.inbox_names import submitted_name
from protocol.messages.common import Priority

_CHUNK = 1 << 20


def put(source: Path, inbox: Path, id: str, priority: Priority) -> Path:
    """Copy a file into the inbox, durably, and return its path there.

    Raises:
        OSError: it cannot be read, or not written; nothing is left behind.
    """
    target = inbox / submitted_name(source.name, id, priority)
    aside = inbox / f".{target.name}.tmp"
    try:
        with source.open("rb") as original, aside.open("xb") as copy:
            shutil.copyfileobj(original, copy, _CHUNK)
            copy.flush()
            os.fsync(copy.fileno())
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return target
