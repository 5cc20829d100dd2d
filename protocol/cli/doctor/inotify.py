"""The kernel's limits on watching folders. At the limit the inbox is still read anew, only later."""

from __future__ import annotations

import os
from pathlib import Path

from protocol.cli.doctor.finding import Finding

LIMITS = Path("/proc/sys/fs/inotify")
FEW_WATCHES = 1024
"""A limit below this is soon used up by other programs."""


def check() -> list[Finding]:
    """Is there room for one more watcher of this user?"""
    try:
        instances = int((LIMITS / "max_user_instances").read_text())
        watches = int((LIMITS / "max_user_watches").read_text())
    except OSError as error:
        what = f"this kernel does not tell its inotify limits: {error.strerror}"
        return [Finding("note", what, "without inotify the inbox is read every inbox.rescan")]
    return [judge(instances, watches, _used())]


def judge(instances: int, watches: int, used: int) -> Finding:
    """Judge the limits of a user who has ``used`` inotify instances."""
    if used >= instances:
        return Finding(
            "warning",
            f"all {instances} inotify instances of this user are taken: files are noticed only by inbox.rescan",
            f"sysctl fs.inotify.max_user_instances={max(instances * 2, 512)}",
        )
    if watches < FEW_WATCHES:
        return Finding(
            "warning", f"only {watches} folders can be watched by this user", "sysctl fs.inotify.max_user_watches=65536"
        )
    return Finding("ok", f"{used} of {instances} inotify instances taken, {watches:,} watches at most")


def _used() -> int:
    """Count this user's inotify instances in the processes that can be looked into."""
    used, user = 0, os.getuid()
    for process in os.listdir("/proc"):  # noqa: PTH208, thousands of paths as text cost a fifth of those as objects
        folder = f"/proc/{process}/fd"
        try:
            if process.isdecimal() and os.stat(folder).st_uid == user:  # noqa: PTH116
                for number in os.listdir(folder):  # noqa: PTH208
                    used += os.readlink(f"{folder}/{number}") == "anon_inode:inotify"  # noqa: PTH115
        except OSError:  # ended meanwhile, or not ours to look into
            continue
    return used
