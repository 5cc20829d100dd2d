"""How much free space is enough. Pure: measurements and settings are handed in.

Two floors, ``refuse`` and ``warn``, cut free space into the levels critical, low and ok. A level is entered at its
floor and left 10 % above it, so that a job that hovers there does not stop and go. Running out of inodes counts like
running out of bytes; a file system that reports none at all (btrfs) does not count them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.cli.paint import size
from protocol.config import DiskSection
from protocol.messages.disk import CheckpointCost, Level, Purpose
from supervisor.durable import Space

LOW_INODES: Final = 10_000
CRITICAL_INODES: Final = 1_000

REMEDY: Final = "free space, or lower disk.refuse_below and: stokehold config reload"
"""What ends a shortage of space, for whoever waits for it."""


@dataclass(frozen=True, slots=True)
class Floors:
    """The floors in force, in bytes."""

    refuse: int
    warn: int
    kept: int
    """What any write but a stop's must leave: the reserve for the checkpoint of a stop."""


def floors(settings: DiskSection, cost: CheckpointCost | None) -> Floors:
    """Return the configured floors, raised by what this model's checkpoints and versions really need.

    With less than two checkpoints and a version free, a save could leave too little for the one that a stop takes.
    Where the need is small, what the user set stands, however low.
    """
    if cost is None:
        return Floors(settings.refuse_below, max(settings.warn_below, settings.refuse_below), settings.refuse_below)
    need = 2 * cost.checkpoint_bytes + cost.version_bytes
    refuse = max(settings.refuse_below, need)
    return Floors(refuse, max(settings.warn_below, 2 * need, refuse), cost.checkpoint_bytes)


def level(before: Level | None, space: Space, floor: Floors) -> Level:
    """Return the level of free space, given the one before (None: nothing to hold on to)."""
    refuse, inodes_refuse = floor.refuse, CRITICAL_INODES
    warn, inodes_warn = floor.warn, LOW_INODES
    if before == "critical":
        refuse, inodes_refuse = back_at(refuse), back_at(inodes_refuse)
    if before in ("critical", "low"):
        warn, inodes_warn = back_at(warn), back_at(inodes_warn)
    if space.free_bytes < refuse or 0 < space.free_inodes < inodes_refuse:
        return "critical"
    if space.free_bytes < warn or 0 < space.free_inodes < inodes_warn:
        return "low"
    return "ok"


def back_at(floor: int) -> int:
    """Return how much must be free for a level to be left again whose floor this is."""
    return floor + floor // 10


def lacking(wanted: int, purpose: Purpose, space: Space, reserved: int, now: Level, floor: Floors) -> str | None:
    """Return why a write of ``wanted`` bytes may not begin, or None if it may.

    Args:
        reserved: bytes promised to others who have not written them yet.
    """
    left = space.free_bytes - reserved - wanted
    if purpose == "stop":
        return None if left >= 0 else f"{size(wanted)} needed, {size(space.free_bytes - reserved)} free"
    if now == "critical":
        return why_critical(space, floor)
    if left < floor.kept:
        return (
            f"{size(wanted)} needed, {size(space.free_bytes - reserved)} free, "
            f"of which {size(floor.kept)} are held back for a stop (free space; how much: stokehold plan)"
        )
    return None


def why_critical(space: Space, floor: Floors) -> str:
    """Return the reason to show while nothing new is trained or saved."""
    if space.free_bytes >= floor.refuse and 0 < space.free_inodes < back_at(CRITICAL_INODES):
        return f"disk: {space.free_inodes} inodes free, {CRITICAL_INODES} needed"
    back = "" if space.free_bytes < floor.refuse else f", work goes on at {size(back_at(floor.refuse))}"
    return f"disk: {size(space.free_bytes)} free, {size(floor.refuse)} needed{back}"
