"""The kind of file system that a home lies on: locks and SQLite's WAL want a local one."""

from __future__ import annotations

import re
from pathlib import Path

from protocol.cli.doctor.finding import Finding
from protocol.home import Home

_REMOTE = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|fuse(\..*)?|virtiofs|vboxsf|drvfs")
_VOLATILE = ("tmpfs", "ramfs")
_OCTAL = re.compile(r"\\([0-7]{3})")


def check(home: Home) -> list[Finding]:
    """Does the home lie on a local, lasting file system?"""
    return [judge(home.root.resolve(), Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))]


def judge(folder: Path, mountinfo: str) -> Finding:
    """Judge the file system of a folder (absolute, no symlinks) by the text of ``/proc/self/mountinfo``."""
    kind, point = kind_of(folder, mountinfo)
    if _REMOTE.fullmatch(kind):
        return Finding(
            "warning",
            f"the home lies on {kind} ({point}), where locks and SQLite's WAL cannot be relied on",
            "move the home to a local disk; only models may well be copied there",
        )
    if kind in _VOLATILE:
        return Finding("warning", f"the home lies on {kind} ({point}) and is gone after a restart of the machine")
    return Finding("ok", f"the home lies on {kind} ({point})")


def kind_of(folder: Path, mountinfo: str) -> tuple[str, Path]:
    """Return the kind of the file system that holds a folder, and where it is mounted (proc(5), ``mountinfo``)."""
    kind, best = "unknown", Path("/")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), left.split()[4]))
        # Of two on one point the later one lies on top.
        if folder.is_relative_to(point) and len(point.parts) >= len(best.parts):
            kind, best = right.split()[0], point
    return kind, best
