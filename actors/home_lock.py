"""The lock of a home: a kernel lock held by a living process, never the existence of a file or a number in it.

Two things are locked with ``flock``: the home folder itself and ``run/lock`` in it. The folder's lock survives that
somebody deletes ``run/`` under a living daemon; the file tells people and programs who holds it. Both descriptors are
close-on-exec and kept in a table of this module, so that nothing but the end of the process releases them.

The content of ``run/lock`` is information only. A pid in it is believed if the process of that pid started at the
recorded tick of the recorded boot; otherwise the holder is looked up in ``/proc/PID/fdinfo``, which names the locks of
an open file (proc(5)). ``flock`` belongs to the open file, so a forked child that inherited it holds it on after the
one who took it has died: that is told apart from another daemon.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from protocol.home import Home
from supervisor.durable import Disk

_TRIES: Final = 100
"""How often a lock file that is replaced again and again is opened anew."""

_PROBE: Final = 0.1
"""Seconds in which whoever merely looks whether ``run/lock`` is held, as ``stokehold stop`` does, lets go of it."""

_NO_FOLDER_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES})
"""What file systems answer that cannot lock a folder, NFS among them; there the file alone decides."""


class LockRecord(msgspec.Struct, frozen=True):
    """The content of ``run/lock``: who took it. Information only."""

    pid: int
    start_ticks: int
    """When the process started, in clock ticks since boot (``/proc/PID/stat``, field 22)."""
    boot_id: str
    socket: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Holder:
    """Who keeps a lock."""

    pid: int | None
    """None: nobody that can be seen from here, such as a process in another container."""
    orphan_of: int | None = None
    """Set if the process merely inherited the lock from a daemon of this pid, which is dead."""


class HeldElsewhere(Exception):
    """Another process holds the lock of this home."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.holder = holder


@dataclass(slots=True)
class _Grip:
    """What this process holds of one home, and on whose behalf."""

    descriptors: list[int] = field(default_factory=list)
    user: object | None = None
    """The present user, or the last one."""
    in_use: bool = False

    def holds(self, path: Path) -> bool:
        """Return whether one of the locks is on what this path names now."""
        return any(_is_at(descriptor, path) for descriptor in self.descriptors)


_grips: Final[dict[Path, _Grip]] = {}


def take(home: Home, user: object, disk: Disk) -> None:
    """Take the lock of a home for this process, making the home and its ``run/`` if nobody ever did.

    Nothing is created when another process holds it. Taking it again for the same ``user`` (compared by identity)
    changes nothing, but for a lock file that was deleted meanwhile: it is made and locked anew. So the time of the
    lock file is that of this user's first start, whatever restarts came after it.

    Raises:
        HeldElsewhere: another process holds it, or this one for another user who has not called :func:`leave`.
        OSError: the home cannot be made, opened or locked.
    """
    key = Path(os.path.realpath(home.root))
    grip = _grips.get(key) or _Grip()
    if grip.in_use and grip.user is not user:
        raise HeldElsewhere(Holder(os.getpid()))
    with ExitStack() as undo:
        taken: list[int] = []
        _make(home.root, disk)
        if not grip.holds(home.root) and (folder := _lock_folder(home, undo)) is not None:
            taken.append(folder)
        if not grip.holds(home.lock):
            disk.mkdir(home.run, mode=0o700, exist_ok=True)
            taken.append(_lock_file(home, undo))
        undo.pop_all()
    grip.descriptors.extend(taken)
    if taken or grip.user is not user:
        _write_record(home, grip)
    grip.user, grip.in_use = user, True
    _grips[key] = grip


def leave(home: Home, user: object) -> None:
    """Let another user of this process take the lock. The process itself holds it on until it ends."""
    grip = _grips.get(Path(os.path.realpath(home.root)))
    if grip is not None and grip.user is user:
        grip.in_use = False


def find_holder(home: Home) -> Holder:
    """Return who holds the lock of this home, as far as it can be seen from here."""
    record = _read_record(home)
    if record is not None and _start_ticks(record.pid) == record.start_ticks and _boot_id() == record.boot_id:
        return Holder(record.pid)
    for path in (home.lock, home.root):
        for pid, owner in _holders(path):
            return Holder(pid) if owner == pid or _start_ticks(owner) is not None else Holder(pid, orphan_of=owner)
    return Holder(None)


def _make(root: Path, disk: Disk) -> None:
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    for folder in reversed(missing):
        disk.mkdir(folder, exist_ok=True)


def _lock_folder(home: Home, undo: ExitStack) -> int | None:
    """Lock the home's own folder; None where the file system cannot."""
    descriptor = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with ExitStack() as closing:
        closing.callback(os.close, descriptor)
        try:
            _lock(descriptor, home)
        except OSError as error:
            if error.errno not in _NO_FOLDER_LOCKS:
                raise
            return None
        undo.push(closing.pop_all())
    return descriptor


def _lock_file(home: Home, undo: ExitStack) -> int:
    """Lock ``run/lock``, and make sure that what was locked is still what the path names.

    Another daemon is met at the lock of the folder already; here it may be somebody who looks and lets go at once.
    """
    patience = time.monotonic() + _PROBE
    for _ in range(_TRIES):
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with ExitStack() as closing:
            closing.callback(os.close, descriptor)
            try:
                _lock(descriptor, home)
            except HeldElsewhere:
                if time.monotonic() > patience:
                    raise
                time.sleep(_PROBE / 10)
                continue
            if _is_at(descriptor, home.lock):
                undo.push(closing.pop_all())
                return descriptor
    raise OSError(errno.EBUSY, "the lock file is being replaced again and again", str(home.lock))


def _lock(descriptor: int, home: Home) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise HeldElsewhere(find_holder(home)) from error


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_record(home: Home, grip: _Grip) -> None:
    """Say who holds the lock. Neither durable nor vital: on a full disk the file keeps a text that shows its age."""
    descriptor = next(known for known in grip.descriptors if _is_at(known, home.lock))
    ticks = _start_ticks(os.getpid()) or 0
    record = LockRecord(os.getpid(), ticks, _boot_id(), str(home.socket), datetime.now(UTC))
    data = msgspec.json.encode(record) + b"\n"
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _read_record(home: Home) -> LockRecord | None:
    try:
        return msgspec.json.decode(home.lock.read_bytes(), type=LockRecord)
    except (OSError, msgspec.DecodeError):
        return None


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None if there is none (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _holders(path: Path) -> Iterator[tuple[int, int]]:
    """Yield ``(pid, pid that took the lock)`` for each process with an open file that carries a flock on ``path``."""
    try:
        wanted = path.stat()
    except OSError:
        return
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            for link in (process / "fd").iterdir():
                if os.path.samestat(link.stat(), wanted):
                    owner = _flock_owner((process / "fdinfo" / link.name).read_text())
                    if owner is not None:
                        yield int(process.name), owner
        except OSError:  # the process has ended, closed the file, or is another user's
            continue


def _flock_owner(fdinfo: str) -> int | None:
    """Return the pid in a line such as ``lock: 1: FLOCK  ADVISORY  WRITE 8419 fe:00:2146930 0 EOF``."""
    for line in fdinfo.splitlines():
        words = line.split()
        if words[:1] == ["lock:"] and words[2] == "FLOCK":
            return int(words[5])
    return None
