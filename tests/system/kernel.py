"""What the kernel knows of a daemon's training process, without asking the daemon."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "STOKEHOLD_TEST_HOME"
"""Variable of the environment that names the home which a daemon, and whatever it starts, works for."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A living process at one moment."""

    pid: int
    busy_s: float
    """CPU time used so far, and time spent waiting for the disk."""
    waits_for_disk: bool
    """It is in the kernel, uninterruptible: it uses no CPU, and is not idle either."""

    def worked_since(self, before: Sight | None) -> bool:
        """Whether it has done anything since it was seen before."""
        if before is None or before.pid != self.pid:
            return self.busy_s > 0
        return self.busy_s > before.busy_s or self.waits_for_disk


def trainer(daemon: int) -> Sight | None:
    """Return the training process of the daemon with this pid: the child of its process host. None: there is none."""
    try:
        for host in psutil.Process(daemon).children():
            for child in host.children():
                if (sight := look(child)) is not None:
                    return sight
    except psutil.NoSuchProcess:
        return None
    return None


def look(process: psutil.Process) -> Sight | None:
    """Return what there is to see of a process; None if it is gone. A zombie is."""
    try:
        with process.oneshot():
            status, times = process.status(), process.cpu_times()
    except psutil.NoSuchProcess:
        return None
    if status == psutil.STATUS_ZOMBIE:
        return None
    return Sight(process.pid, times.user + times.system + times.iowait, status == psutil.STATUS_DISK_SLEEP)


def working_for(home: Path) -> list[int]:
    """Return every living process that a daemon of this home has started, wherever it stands now, and the daemon."""
    mark = f"{MARK}={home}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is a kernel thread
            if mark in environment.read_bytes().split(b"\0"):  # a zombie has none left
                found.append(int(environment.parent.name))
    return found


def maps_torch(pid: int) -> bool:
    """Whether the process has a library of torch in its memory."""
    return re.search(r"/libtorch[^/]*\.so", Path(f"/proc/{pid}/maps").read_text()) is not None
