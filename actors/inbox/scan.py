"""What stands in the inbox: one walk over it, each folder watched before it is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from actors.inbox.validation import Stamp
from protocol.inbox_names import is_hidden, printable


@dataclass(slots=True)
class Found:
    """The outcome of one walk."""

    files: dict[Path, Stamp] = field(default_factory=dict)
    """Everything that is no folder, by its path relative to the inbox."""
    troubles: list[str] = field(default_factory=list)
    """Folders that could not be read or watched, and why."""


def scan(inbox: Path, watch: Callable[[Path], None]) -> Found:
    """Walk the inbox and the folders in it. Names that belong to their producer are passed over, folders too.

    Args:
        watch: called with each folder before it is read, so that what comes after the reading is noticed.

    Raises:
        OSError: the inbox itself is not there, or cannot be read.
    """
    found = Found()
    _watch(inbox, watch, found)
    folders = [os.scandir(inbox)]
    while folders:
        with folders.pop() as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        found.files[Path(entry.path).relative_to(inbox)] = Stamp.of(status)
                        continue
                    _watch(Path(entry.path), watch, found)
                    folders.append(os.scandir(entry.path))
                except (FileNotFoundError, NotADirectoryError):
                    continue  # moved away or replaced since the folder was listed
                except OSError as error:
                    found.troubles.append(f"{printable(entry.path)} cannot be read: {error.strerror}")
    return found


def _watch(folder: Path, watch: Callable[[Path], None], found: Found) -> None:
    """Watch a folder; where the system has no watch left, the periodic look must do."""
    try:
        watch(folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        found.troubles.append(
            f"{printable(str(folder))} cannot be watched, files in it are found late: {error.strerror}"
        )
