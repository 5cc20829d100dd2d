"""For tests of actors and trees: time that the test owns, children that wait for permission, storms, disks that fail.

A test with all of them stands in ``docs/library.md``. Everything here works on asyncio and on trio; a tree with a
:class:`VirtualClock` does in milliseconds what takes it days, as long as its actors take their time from
``self.context.clock``, ``after`` and ``every``.
"""

from __future__ import annotations

from supervisor.testing.clock import VirtualClock
from supervisor.testing.disks import CrashingDisk, CrashPoint, FullDisk
from supervisor.testing.gates import Gate, GatedActor
from supervisor.testing.storms import Blow, Storm, StormError
from supervisor.testing.watching import EventLog, eventually, settle

__all__ = [
    "Blow",
    "CrashPoint",
    "CrashingDisk",
    "EventLog",
    "FullDisk",
    "Gate",
    "GatedActor",
    "Storm",
    "StormError",
    "VirtualClock",
    "eventually",
    "settle",
]
