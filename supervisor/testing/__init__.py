"""For tests of actors and trees: time that the test owns, children that wait for permission, disks that fail."""

from __future__ import annotations

from supervisor.testing.clock import VirtualClock
from supervisor.testing.disks import CrashingDisk, CrashPoint, FullDisk
from supervisor.testing.gates import Gate, GatedActor
from supervisor.testing.watching import EventLog, eventually, settle

__all__ = [
    "CrashPoint",
    "CrashingDisk",
    "EventLog",
    "FullDisk",
    "Gate",
    "GatedActor",
    "VirtualClock",
    "eventually",
    "settle",
]
