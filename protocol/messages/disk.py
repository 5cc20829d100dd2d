"""What can be said to DiskMonitor, and what it answers."""

from __future__ import annotations

from typing import Literal

from protocol.messages.common import Done, Message, Record, Request

Level = Literal["ok", "low", "critical"]
Purpose = Literal["job", "save", "stop", "publish", "consolidate"]


class DiskView(Record, frozen=True):
    """Free space as last measured, in bytes."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    level: Level
    refuse_below: int
    warn_below: int
    reserved_bytes: int


class GetDisk(Request[DiskView], frozen=True):
    """Measure now."""


class Reserved(Record, frozen=True):
    token: str
    granted: bool
    reason: str = ""


class Reserve(Request[Reserved], frozen=True):
    """Ask for space before writing. ``stop`` may draw on the reserve below ``refuse_below``; others may not.

    Answered at once if ``wait_s`` is 0, else when there is room or the wait is over (``granted`` False).
    """

    bytes: int
    purpose: Purpose
    wait_s: float = 0.0


class Unreserve(Request[Done], frozen=True):
    """Give the reservation back: the write is over, or given up."""

    token: str


class CheckpointCost(Message, frozen=True):
    """What a checkpoint and a version of this model really need, in bytes. Raises the floors of the disk."""

    checkpoint_bytes: int
    version_bytes: int


class WriteFailed(Message, frozen=True):
    """A write met ENOSPC or EDQUOT: a failed write wins over what the file system says is free."""

    path: str
    error: str
