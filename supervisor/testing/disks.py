"""Disks that fill up or die at a chosen step.

Every public method of :class:`~supervisor.durable.Disk` that changes something is one step; the steps that a larger
one is made of (``replace`` writes, then renames over) count too, since a crash may fall between them.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from supervisor.durable import Disk


class _SteppingDisk(Disk):
    """Calls :meth:`before` and :meth:`after` around each step, with its name and the path that it is about."""

    def before(self, step: str, path: Path | None) -> None:
        """A step is about to happen."""

    def after(self, step: str, path: Path | None) -> None:
        """A step has happened."""

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        self._step("write", path, lambda: super(_SteppingDisk, self).write(path, data, mode))

    def rename(self, source: Path, target: Path, *, sync: bool = True) -> None:
        self._step("rename", target, lambda: super(_SteppingDisk, self).rename(source, target, sync=sync))

    def rename_over(self, source: Path, target: Path) -> None:
        self._step("rename_over", target, lambda: super(_SteppingDisk, self).rename_over(source, target))

    def unlink(self, path: Path, missing_ok: bool = False) -> None:
        self._step("unlink", path, lambda: super(_SteppingDisk, self).unlink(path, missing_ok))

    def mkdir(self, path: Path, mode: int = 0o755, exist_ok: bool = False) -> None:
        self._step("mkdir", path, lambda: super(_SteppingDisk, self).mkdir(path, mode, exist_ok))

    def link(self, source: Path, target: Path) -> None:
        self._step("link", target, lambda: super(_SteppingDisk, self).link(source, target))

    def sync_file(self, path: Path) -> None:
        self._step("sync_file", path, lambda: super(_SteppingDisk, self).sync_file(path))

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder", path, lambda: super(_SteppingDisk, self).sync_folder(path))

    def remove_tree(self, path: Path) -> None:
        self._step("remove_tree", path, lambda: super(_SteppingDisk, self).remove_tree(path))

    def commit(self, connection: sqlite3.Connection) -> None:
        self._step("commit", None, lambda: super(_SteppingDisk, self).commit(connection))

    def _step(self, step: str, path: Path | None, work: Callable[[], None]) -> None:
        self.before(step, path)
        work()
        self.after(step, path)


class FullDisk(_SteppingDisk):
    """Raises ``ENOSPC`` at a step (from 1) and at each one after it that needs room, until :meth:`make_room`.

    Removing things needs no room. ``steps`` lists what has been asked for, so a test can first count and then iterate.

    Example::

        disk = FullDisk(full_at=1)
        with pytest.raises(OSError, match="No space left"):
            disk.write(folder / "a", b"1")
        disk.make_room()
        disk.write(folder / "a", b"1")
        assert disk.steps == ["write", "write"]
    """

    _needs_room = frozenset({"write", "mkdir", "link", "rename", "rename_over", "commit"})

    def __init__(self, full_at: int | None = None) -> None:
        self.full_at = full_at
        self.steps: list[str] = []

    def make_room(self) -> None:
        """From now on every step succeeds."""
        self.full_at = None

    def before(self, step: str, path: Path | None) -> None:
        self.steps.append(step)
        if self.full_at is not None and len(self.steps) >= self.full_at and step in self._needs_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if path is None else str(path))


class CrashPoint:
    """Names a step: the ``count``-th (from 1) of a kind whose path contains ``where``, before or after it happens.

    Example::

        second_commit = CrashPoint("commit", count=2)
        after_the_rename = CrashPoint("rename", "queue/done/", after=True)
    """

    def __init__(self, step: str, where: str = "", count: int = 1, *, after: bool = False) -> None:
        self.step = step
        self.where = where
        self.count = count
        self.is_after = after

    def hit(self, step: str, path: Path | None, *, after: bool) -> bool:
        """Whether this is the one. Counts those that match."""
        if after is not self.is_after or step != self.step or self.where not in str(path or ""):
            return False
        self.count -= 1
        return self.count == 0


class CrashingDisk(_SteppingDisk):
    """Ends the process, as a power cut would for all that runs in it, at a named step: by ``os._exit(code)``.

    Example::

        program = (
            "import sys; from pathlib import Path; from supervisor.testing import CrashingDisk, CrashPoint;"
            "CrashingDisk(CrashPoint('write', 'HEAD')).write(Path(sys.argv[1]), b'1')"
        )
        assert subprocess.run([sys.executable, "-c", program, folder / "HEAD"]).returncode == 137
        assert not (folder / "HEAD").exists()
    """

    def __init__(self, point: CrashPoint, code: int = 137) -> None:
        self._point = point
        self._code = code

    def before(self, step: str, path: Path | None) -> None:
        if self._point.hit(step, path, after=False):
            os._exit(self._code)

    def after(self, step: str, path: Path | None) -> None:
        if self._point.hit(step, path, after=True):
            os._exit(self._code)
