"""Processes of a daemon that is dead. None should be left two seconds after its death.

Everything that a process host starts carries a tag in its environment that names the owner: pid namespace, pid and
start time (``supervisor/custody.py`` writes it). An owner that no longer runs has left the process behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from protocol.cli.doctor.finding import Finding

TAG = b"SUPERVISOR_CUSTODY="
ENDED_WITHIN = 2.0
"""Seconds after its daemon's death within which a process must be gone."""

_PROC = Path("/proc")


def check() -> list[Finding]:
    """Is anything left of a daemon that has ended?"""
    left = dict(_left())
    if left:
        # A daemon that ended just now may have left some that its hosts are about to end.
        time.sleep(ENDED_WITHIN)
        left = {pid: command for pid, command in _left() if left.get(pid) == command}
    if not left:
        return [Finding("ok", "no process is left of a daemon that has ended")]
    return [
        Finding("trouble", f"PID {pid} is left of a daemon that has ended: {command}", f"kill -9 {pid}")
        for pid, command in left.items()
    ]


def _left() -> Iterator[tuple[int, str]]:
    namespace = str((_PROC / "self/ns/pid").stat().st_ino)
    for process in os.listdir(_PROC):  # noqa: PTH208, thousands of paths as text cost a fifth of those as objects
        if not process.isdecimal():
            continue
        try:
            with open(f"/proc/{process}/environ", "rb") as file:  # noqa: PTH123
                environment = file.read()
            if TAG not in environment or _ended(_PROC / process):
                continue
            command = (_PROC / process / "cmdline").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        tag = next(
            (entry[len(TAG) :].decode(errors="replace") for entry in environment.split(b"\0") if entry.startswith(TAG)),
            "",
        )
        match tag.split("."):
            # A pid of another namespace means nothing here, and what holds no numbers is no tag of ours.
            case [space, owner, started, _] if space == namespace and owner.isdecimal() and started.isdecimal():
                if not _runs(int(owner), int(started)):
                    yield int(process), command.replace(b"\0", b" ").decode(errors="replace").strip()


def _runs(pid: int, started: int) -> bool:
    try:
        return int(_fields(_PROC / str(pid))[19]) == started and not _ended(_PROC / str(pid))
    except OSError:
        return False


def _ended(process: Path) -> bool:
    """Whether it is a zombie: nothing is left of it but its exit status."""
    return _fields(process)[0] in (b"Z", b"X")


def _fields(process: Path) -> list[bytes]:
    """Return the fields of ``/proc/PID/stat`` behind the name, which may hold spaces and brackets of its own."""
    text = (process / "stat").read_bytes()
    return text[text.rindex(b")") + 2 :].split()
