"""Make a folder appear whole or not at all, with a digest of everything in it.

The order is that of crash-safe publication: files written and fsynced, read back, the manifest last, every folder
fsynced from the bottom up, one rename, the parent fsynced. A failed fsync fails the save: the kernel may have dropped
the dirty pages and would call the next fsync a success (Rebello et al., "Can Applications Recover from fsync
Failures?", 2020).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from actors.trainer.tensorfile import CHUNK
from protocol.records import MANIFEST, FileDigest
from supervisor.durable import Disk

TEMPORARY = ".tmp-"
TRASH = ".trash-"
TORN = ".torn-"

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Stage:
    """A folder being made. ``name`` is what it will be called, to be set before the block ends."""

    folder: Path
    name: str = ""


@contextmanager
def staged(disk: Disk, shelf: Path, name: str = "") -> Iterator[Stage]:
    """Yield a temporary folder ``.tmp-*`` in ``shelf``; when the block ends well, seal it and give it its name.

    When the block or the sealing fails, the folder is removed and the error goes up. What a killed process leaves is
    removed by :func:`sweep` at the next start.

    Raises:
        FileExistsError: the name is taken. Folders on a shelf are immutable: nothing is merged or replaced.
    """
    stage = Stage(shelf / f"{TEMPORARY}{token_hex(8)}", name)
    placed = False
    try:
        disk.mkdir(stage.folder)
        yield stage
        for folder, _, _ in os.walk(stage.folder, topdown=False):
            disk.sync_folder(Path(folder))
        disk.rename(stage.folder, shelf / stage.name)
        placed = True
    finally:
        if not placed and stage.folder.exists():
            disk.remove_tree(stage.folder)


def write_verified(disk: Disk, path: Path, pieces: Sequence[memoryview]) -> FileDigest:
    """Write the buffers to a new file, fsync it, read it back and compare; return its size and sha256.

    The digest is of the bytes in memory and is computed in a thread while the disk works; the comparison proves that
    the file holds them.

    Raises:
        OSError: writing failed (ENOSPC, EIO, ...), or what was read back differs (EIO).
    """
    with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
        digest = pool.submit(_sha256, pieces)
        with path.open("xb") as file:
            for piece in pieces:
                file.write(piece)
        disk.sync_file(path)
        _compare(path, pieces)
        return FileDigest(bytes=sum(piece.nbytes for piece in pieces), sha256=digest.result())


def file_digest(path: Path) -> FileDigest:
    """Read a file and return its size and sha256."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(bytes=file.tell(), sha256=sha256)


def files_below(folder: Path) -> dict[str, Path]:
    """Return every file below ``folder`` except its manifest, by its path relative to it with ``/`` between."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in [*names, *(one for one in folders if (Path(parent) / one).is_symlink())]:
            path = Path(parent) / name
            found[path.relative_to(folder).as_posix()] = path
    found.pop(MANIFEST, None)
    return found


def misfit(folder: Path, files: dict[str, FileDigest]) -> str | None:
    """Say how the files below ``folder`` differ in name or size from those vouched for, or None. Reads no contents."""
    found = files_below(folder)
    if lacking := sorted(files.keys() - found.keys()):
        return f"{', '.join(lacking)} missing"
    if added := sorted(found.keys() - files.keys()):
        return f"{', '.join(added)} is not of it"
    for name, expected in files.items():
        status = found[name].lstat()
        if not stat.S_ISREG(status.st_mode):
            return f"{name} is not a plain file"
        if status.st_size != expected.bytes:
            return f"{name} has {status.st_size} bytes instead of {expected.bytes}"
    return None


def discard(disk: Disk, folder: Path) -> None:
    """Remove a folder so that no reader ever sees half of it under its name: renamed first, then deleted.

    Where a full disk has no room for the other name it goes without: its manifest first, so that half of it is torn.
    """
    trash = folder.with_name(TRASH + folder.name)
    if trash.exists():
        disk.remove_tree(trash)
    try:
        disk.rename(folder, trash)
    except OSError as error:
        if error.errno not in FULL:
            raise
        disk.unlink(folder / MANIFEST, missing_ok=True)
        trash = folder
    disk.remove_tree(trash)


def sweep(disk: Disk, shelf: Path) -> list[str]:
    """Remove what killed processes left half-made or half-deleted in ``shelf``; return the names."""
    left = (
        sorted(path for path in shelf.glob(".*") if path.name.startswith((TEMPORARY, TRASH))) if shelf.exists() else []
    )
    for path in left:
        if path.is_dir() and not path.is_symlink():
            disk.remove_tree(path)
        else:
            disk.unlink(path)
    return [path.name for path in left]


def _sha256(pieces: Sequence[memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _compare(path: Path, pieces: Sequence[memoryview]) -> None:
    with path.open("rb") as file:
        for piece in pieces:
            for begin in range(0, piece.nbytes, CHUNK):
                expected = piece[begin : begin + CHUNK]
                found = bytearray(expected.nbytes)  # bytearray compares by memcmp; memoryview element by element
                if file.readinto(found) != len(found) or found != expected:
                    raise OSError(errno.EIO, "what was read back is not what was written", str(path))
        if file.read(1):
            raise OSError(errno.EIO, "more was read back than was written", str(path))
