"""Whoever can reach the socket commands the daemon."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from protocol.cli.doctor.finding import Finding
from protocol.home import Home


def check(home: Home) -> list[Finding]:
    """Is the socket the owner's alone, and may we write where the daemon writes?"""
    found = [
        finding
        for path, mode in ((home.run, 0o700), (home.socket, 0o600))
        if (finding := _private(path, mode)) is not None
    ]
    for folder in home.folders:
        if not folder.is_dir():
            found.append(Finding("note", f"{folder} does not exist", "the daemon makes it at its start"))
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            found.append(Finding("trouble", f"this user cannot write in {folder}", f"chmod u+rwx {folder}"))
    return found or [Finding("ok", "folders are writable, and the socket is the owner's alone")]


def _private(path: Path, mode: int) -> Finding | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if found.st_uid not in (os.geteuid(), 0):
        return Finding("trouble", f"{path} belongs to user {found.st_uid}", "run stokehold as that user")
    given = stat.S_IMODE(found.st_mode)
    if given & ~mode:
        return Finding("trouble", f"{path} is open to others (mode {given:o})", f"chmod {mode:o} {path}")
    return None
