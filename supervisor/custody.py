"""Who descends from whom, and how to end them for certain.

A process is named by its pid *and* its start time, since the kernel hands pids out again. Descendants are found in two
ways that do not depend on each other: by walking the parents in ``/proc``, which sees everything below a living
subreaper also across sessions; and by a tag in the environment, which still tells whose a process was when every
ancestor of it is dead. Signals go through a pidfd, so they cannot hit a stranger.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TAG = "SUPERVISOR_CUSTODY"
"""Name of the environment variable that marks every process started under a host."""

_PROC = Path("/proc")
_LISTINGS = 8
"""How often the list of processes is read until it has nothing new."""
_EXEC_LOOK, _EXEC_LOOKS = 0.002, 5
"""A process in the middle of an exec has no environment for a moment: how long until another look, and how many."""
_PF_KTHREAD = 0x00200000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


@dataclass(frozen=True, slots=True, order=True)
class Pid:
    """One process for as long as the machine runs: its number and its start time in clock ticks since boot."""

    number: int
    started: int


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: Pid
    parent: int
    state: str
    flags: int

    @property
    def runs(self) -> bool:
        """Whether it is a process with a program in it: neither a zombie nor a thread of the kernel."""
        return self.state not in "ZX" and not self.flags & _PF_KTHREAD


def _stat(number: int) -> _Stat | None:
    try:
        text = (_PROC / str(number) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets of its own
    return _Stat(Pid(number, int(fields[19])), int(fields[1]), fields[0].decode(), int(fields[6]))


def identify(number: int) -> Pid | None:
    """Return the process that bears this number now, or None. A zombie still bears it."""
    stat = _stat(number)
    return stat.pid if stat else None


def alive(pid: Pid) -> bool:
    """Whether the process still runs. A zombie does not: nothing of it is left but its exit status."""
    stat = _stat(pid.number)
    return stat is not None and stat.pid == pid and stat.state not in "ZX"


def stopped(number: int) -> bool:
    """Whether this process was stopped by a signal, or is stopped by a debugger."""
    stat = _stat(number)
    return stat is not None and stat.state in "Tt"


def _everyone() -> Iterator[_Stat]:
    """Yield every process, and then those that have come meanwhile: one that forks and ends is gone from its place."""
    seen: set[int] = set()
    for _ in range(_LISTINGS):
        new = {int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()} - seen
        if not new:
            return
        seen |= new
        yield from (stat for number in sorted(new, reverse=True) if (stat := _stat(number)) is not None)


def descendants(ancestor: int, without: Collection[int] = ()) -> list[Pid]:
    """Return every living process below ``ancestor``, parents first. Zombies are passed through, not returned.

    Complete only while ``ancestor`` is a subreaper or has lost no child in between: an orphan belongs to its reaper.
    The children of ``ancestor`` named by ``without`` are left out, with all that is below them.
    """
    children: dict[int, list[_Stat]] = {}
    for stat in _everyone():
        children.setdefault(stat.parent, []).append(stat)
    found: list[Pid] = []
    generation = [child for child in children.get(ancestor, []) if child.pid.number not in without]
    while generation:
        found += [stat.pid for stat in generation if stat.state not in "ZX"]
        generation = [child for stat in generation for child in children.get(stat.pid.number, [])]
    return found


def children() -> set[int]:
    """Return the pids of what this process would have to wait for: its children and the orphans that came to it.

    One read, where ``/proc`` has an entry for each process of the machine. Exact in a process of one thread, since
    nothing leaves the kernel's list but what that thread itself reaps.
    """
    me = os.getpid()
    try:
        return {int(number) for number in (_PROC / f"{me}/task/{me}/children").read_bytes().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return {stat.pid.number for stat in _everyone() if stat.parent == me}


def new_tag() -> str:
    """Return a tag that no other host ever had. It names this process as the owner."""
    me = identify(os.getpid())
    assert me is not None  # a process that runs has an entry
    return f"{_namespace()}.{me.number}.{me.started}.{secrets.token_hex(8)}"


def owner_of(tag: str) -> Pid | None:
    """Return the process that made this tag, or None if that cannot be told from here.

    Pids of another namespace mean nothing here: a container's processes are visible to the machine around it, and must
    not be taken for abandoned.
    """
    namespace, *rest = tag.split(".")
    match rest:
        case [number, started, _] if namespace == _namespace() and number.isdecimal() and started.isdecimal():
            return Pid(int(number), int(started))
        case _:
            return None


def _namespace() -> str:
    return str((_PROC / "self/ns/pid").stat().st_ino)


def _tags() -> Iterable[tuple[Pid, str]]:
    """Return every other running process that bears a tag, with its tag."""
    marker = f"{TAG}=".encode()
    me = os.getpid()
    unread: Iterable[Pid] = (stat.pid for stat in _everyone() if stat.runs and stat.pid.number != me)
    for last in [False] * _EXEC_LOOKS + [True]:
        between: list[Pid] = []
        for pid in unread:
            try:
                environment = (_PROC / str(pid.number) / "environ").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # gone, or of another user: not ours to end
            if not environment:
                between.append(pid)
            for entry in environment.split(b"\0"):
                if entry.startswith(marker):
                    yield pid, entry[len(marker) :].decode(errors="replace")
        if last or not between:
            return
        time.sleep(_EXEC_LOOK)
        unread = [pid for pid in between if alive(pid)]  # one that has ended has no environment, either


def tagged(tag: str) -> list[Pid]:
    """Return every living process that was started with this tag in its environment, except this one."""
    return [pid for pid, its in _tags() if its == tag]


def abandoned() -> list[Pid]:
    """Return every living process whose tag names an owner that is dead: what a killed daemon left behind."""
    return [pid for pid, tag in _tags() if (owner := owner_of(tag)) is not None and not alive(owner)]


def open_pidfd(pid: Pid) -> int | None:
    """Return a pidfd of the process, or None if it is gone. It becomes readable when the process ends."""
    try:
        fd = os.pidfd_open(pid.number)
    except ProcessLookupError:
        return None
    if identify(pid.number) == pid:  # read after opening: what the pidfd holds can no longer change
        return fd
    os.close(fd)
    return None


def send(pid: Pid, number: int) -> bool:
    """Send a signal to the process and to nobody else. False: it is gone, or not ours to signal."""
    fd = open_pidfd(pid)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(fd)
    return True


def end_all(find: Callable[[], list[Pid]], limit: float, reap: Callable[[], object] = lambda: None) -> list[Pid]:
    """SIGKILL whatever ``find`` finds until it finds nothing more, and return what still lives after ``limit`` seconds.

    A process may fork and exit between being found and being killed. So its process group is killed with it, which the
    kernel does in one go, and only nothing found twice in a row is nothing. What is returned is held by the kernel
    (uninterruptible, SIGKILL pending) and goes as soon as it is let go.
    """
    deadline = time.monotonic() + limit
    nothing = 0
    while nothing < 2:
        left = find()
        nothing = 0 if left else nothing + 1
        if left:
            _kill(left, max(0.0, min(0.05, deadline - time.monotonic())))
            reap()
            if time.monotonic() >= deadline:
                return [pid for pid in find() if alive(pid)]
    return []


def _kill(pids: list[Pid], wait: float) -> None:
    """Kill these processes with their groups, and wait until one of them has ended, or so many seconds."""
    poll = select.poll()
    with contextlib.ExitStack() as opened:
        for pid in pids:
            fd = open_pidfd(pid)
            if fd is None:
                continue
            opened.callback(os.close, fd)
            _kill_group(pid)
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
            poll.register(fd, select.POLLIN)
        poll.poll(wait * 1000)


def _kill_group(pid: Pid) -> None:
    """Kill the group of a process, if its session is not ours: a session made below us holds none but descendants."""
    try:
        if os.getsid(pid.number) != os.getsid(0):
            os.killpg(os.getpgid(pid.number), signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def end_numbers(numbers: list[int], limit: float) -> None:
    """Wait until these processes, killed already and held by the kernel, are gone, or so many seconds."""
    held = {pid for number in numbers if (pid := identify(number)) is not None}
    end_all(lambda: [pid for pid in held if alive(pid)], limit)


def describe(number: int) -> str:
    """Say what the kernel knows of a process that does not end."""
    wanted = ("State", "SigPnd", "ShdPnd", "Threads")
    try:
        lines = (_PROC / str(number) / "status").read_text().splitlines()
        sleeps_on = (_PROC / str(number) / "wchan").read_text() or "0"
    except (FileNotFoundError, ProcessLookupError):
        return f"PID {number} is gone"
    except OSError as error:
        return f"PID {number}: {error}"
    facts = ", ".join(" ".join(line.split()) for line in lines if line.startswith(wanted))
    return f"PID {number}: {facts}, in kernel function {sleeps_on}"


def become_subreaper() -> None:
    """Make this process the parent of every orphan below it, in whatever session (prctl(2), Linux 3.4)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGKILL to this process when the *thread* that forked it ends, and make sure it is armed.

    Call it in the forked child. The setting is lost over fork and kept over exec. If ``parent`` died before the call,
    nothing would ever come, so this process ends here and now.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def outlive_parent() -> None:
    """Undo :func:`die_with_parent`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl({option})")
