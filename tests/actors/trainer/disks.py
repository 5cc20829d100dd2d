"""Disks that fail on purpose. Each public operation of :class:`Disk` is one numbered step."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor.durable import Disk

STEPS = (
    "write",
    "replace",
    "rename",
    "rename_over",
    "unlink",
    "mkdir",
    "link",
    "symlink",
    "sync_file",
    "sync_folder",
    "remove_tree",
)


class SteppedDisk(Disk):
    """Calls ``before(number, operation, path)`` ahead of each outermost operation, counted from 1."""

    def __init__(self, before: Callable[[int, str, Path], None]) -> None:
        super().__init__()
        self.steps: list[str] = []
        self._before = before
        self._inside = False

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in STEPS or self._inside:
            return method

        def step(*arguments: Any, **options: Any) -> Any:
            self.steps.append(name)
            path = next(argument for argument in reversed(arguments) if isinstance(argument, Path))
            self._before(len(self.steps), name, path)
            self._inside = True
            try:
                return method(*arguments, **options)
            finally:
                self._inside = False

        return step


def dying_disk(at: int) -> SteppedDisk:
    """A disk whose process is gone before step ``at``, as by kill -9: no handler, no clean-up."""

    def before(number: int, operation: str, path: Path) -> None:
        if number == at:
            if operation == "write":  # a death in the middle of a write leaves half of it
                path.write_bytes(b'{"half":')
            os._exit(9)

    return SteppedDisk(before)


def full_disk(at: int) -> SteppedDisk:
    """A disk that is full from step ``at`` on, for all that adds bytes; removing still works."""

    def before(number: int, operation: str, path: Path) -> None:
        if number >= at and operation in ("write", "replace", "mkdir", "sync_file", "symlink"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    return SteppedDisk(before)


def broken_disk(at: int) -> SteppedDisk:
    """A disk whose step ``at`` alone fails with EIO."""

    def before(number: int, operation: str, path: Path) -> None:
        if number == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    return SteppedDisk(before)
