"""Free space against the floors below which the daemon warns, and below which it stops training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from protocol.cli.doctor.finding import Finding
from protocol.cli.paint import size
from protocol.quick import Failed, NoDaemon, ask

if TYPE_CHECKING:
    from protocol.home import Home

FEW_INODES = 10_000


def check(home: Home) -> list[Finding]:
    """Is there room? The floors are the running daemon's, else those of the home's file, else the defaults."""
    space = os.statvfs(home.root)
    found = [judge(space.f_bavail * space.f_frsize, *_floors(home))]
    if space.f_files > 0 and space.f_favail < FEW_INODES:
        found.append(Finding("warning", f"only {space.f_favail:,} inodes are free", "delete many small files there"))
    return found


def judge(free: int, refuse_below: int, warn_below: int) -> Finding:
    """Judge free space, in bytes."""
    remedy = "free space; or lower disk.refuse_below and disk.warn_below, and: stokehold config reload"
    if free < refuse_below:
        return Finding("trouble", f"{size(free)} free: below {size(refuse_below)} nothing is trained or saved", remedy)
    if free < warn_below:
        return Finding("warning", f"{size(free)} free, less than the {size(warn_below)} of disk.warn_below", remedy)
    return Finding("ok", f"{size(free)} free; work stops below {size(refuse_below)}")


def _floors(home: Home) -> tuple[int, int]:
    """Return ``disk.refuse_below`` and ``disk.warn_below``."""
    try:
        shown = ask(home.socket, "ControlSocket", {"type": "show_config"})["values"]["disk"]
        return shown["refuse_below"], shown["warn_below"]
    except (NoDaemon, Failed):
        return _configured(home)


def _configured(home: Home) -> tuple[int, int]:
    from protocol.config import DiskSection
    from protocol.settings import ConfigError, load

    try:
        disk = load(home.settings if home.settings.exists() else None).config.disk
    except ConfigError:
        disk = DiskSection()
    return disk.refuse_below, disk.warn_below
