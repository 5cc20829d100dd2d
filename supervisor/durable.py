"""The disk: every operation that must survive a crash goes through one :class:`Disk` object.

Production has one implementation and no hooks; tests pass in a subclass that crashes, fills or forgets (see
``supervisor.testing.disks``). A step has happened when its method has returned: file contents are fsynced, and so is
the folder whose entry changed. All methods are synchronous; call them from a worker thread where they may be slow.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# File systems without the flag answer EINVAL (NFS, some FUSE), old kernels and seccomp filters ENOSYS.
_NO_SUCH_FLAG = (errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Space:
    """What is left on a file system for this user."""

    free_bytes: int
    total_bytes: int
    free_inodes: int


class Disk:
    """Durable operations. All errors are ``OSError`` (or ``sqlite3.Error`` from :meth:`commit`), as the kernel says."""

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """Create or truncate a file, write it and fsync it. Not atomic: for files that nobody reads yet.

        The folder is not synced: a file that must be found again is named by :meth:`rename` or :meth:`sync_folder`.
        """
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            self._write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """Replace a file as a whole: a reader, or the next boot, sees the old content or the new, never a part."""
        temporary = _temporary(path)
        try:
            self.write(temporary, data, mode)
            self.rename_over(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def rename(self, source: Path, target: Path, *, sync: bool = True) -> None:
        """Move a file or folder to a name that must be free; across file systems by a synced copy (files only).

        Args:
            sync: False leaves it to the caller to make many moves durable at once, by :meth:`sync_folder` of each
                folder concerned, that of the targets first.

        Raises:
            FileExistsError: something is already there; nothing was changed.
        """
        try:
            self._rename_no_replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._move_across(source, target)
            return
        if sync:
            self._sync_both(source, target)

    def rename_over(self, source: Path, target: Path) -> None:
        """Move a file or folder, replacing what is there."""
        source.rename(target)
        self._sync_both(source, target)

    def unlink(self, path: Path, missing_ok: bool = False) -> None:
        """Remove a file or a symbolic link."""
        try:
            path.unlink()
        except FileNotFoundError:
            if not missing_ok:
                raise
            return
        self.sync_folder(path.parent)

    def mkdir(self, path: Path, mode: int = 0o755, exist_ok: bool = False) -> None:
        """Make one folder; its parent must exist."""
        try:
            path.mkdir(mode)
        except FileExistsError:
            if not (exist_ok and path.is_dir()):
                raise
            return
        self.sync_folder(path.parent)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, which must be free (``FileExistsError``)."""
        os.link(source, target)
        self.sync_folder(target.parent)

    def symlink(self, target_text: str, path: Path) -> None:
        """Make ``path`` a symbolic link with this text, replacing a former one atomically."""
        temporary = _temporary(path)
        temporary.symlink_to(target_text)
        try:
            self.rename_over(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def sync_file(self, path: Path) -> None:
        """Make what was written to a file durable."""
        self._sync(path, os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """Make the entries of a folder durable."""
        self._sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all it holds, or nothing if it is not there. Not atomic: rename it aside first."""
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if path.exists():
                raise
            return
        self.sync_folder(path.parent)

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit an open transaction; the connection's ``synchronous`` pragma decides how durable that is."""
        connection.commit()

    def free(self, path: Path) -> Space:
        """What is left on the file system of ``path``: available to this user, not counting root's reserve."""
        found = os.statvfs(path)
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail)

    def _write_all(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def _sync(self, path: Path, flags: int) -> None:
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _sync_both(self, source: Path, target: Path) -> None:
        # The new name first: between the two, a crash may leave both names, never none.
        self.sync_folder(target.parent)
        if source.parent != target.parent:
            self.sync_folder(source.parent)

    def _rename_no_replace(self, source: Path, target: Path) -> None:
        try:
            _renameat2(source, target)
        except OSError as error:
            if error.errno not in _NO_SUCH_FLAG:
                raise
        else:
            return
        if source.is_dir() and not source.is_symlink():
            # A folder cannot be linked; rename(2) refuses a target that is a file or a folder with something in it,
            # and an empty one is refused here, which leaves a gap that only another writer of ours could use.
            if target.exists() or target.is_symlink():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(source), None, str(target))
            source.rename(target)
        else:
            os.link(source, target, follow_symlinks=False)
            source.unlink()

    def _move_across(self, source: Path, target: Path) -> None:
        temporary = _temporary(target)
        try:
            shutil.copyfile(source, temporary)
            shutil.copystat(source, temporary)
            self.sync_file(temporary)
            self._rename_no_replace(temporary, target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self.sync_folder(target.parent)
        self.unlink(source)


def _temporary(path: Path) -> Path:
    """A name beside ``path`` that nobody else uses, cut where the file system's 255 bytes would not hold it."""
    stem = path.name.encode()[:200].decode(errors="ignore")
    return path.with_name(f".{stem}.{secrets.token_hex(6)}.tmp")


def _renameat2(source: Path, target: Path) -> None:
    """``renameat2(2)`` with ``RENAME_NOREPLACE``, which Python does not wrap."""
    function = getattr(_libc, "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(source), None, str(target))


_libc = ctypes.CDLL(None, use_errno=True)
if hasattr(_libc, "renameat2"):
    _libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    _libc.renameat2.restype = ctypes.c_int
