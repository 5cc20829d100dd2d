"""What may come over the control socket, by actor. Everything else is said only between actors."""

from __future__ import annotations

from protocol.messages import consolidator, disk, inbox, queue, system
from protocol.messages.common import Message

INTROSPECTION: tuple[type[Message], ...] = (
    system.GetTree,
    system.GetActor,
    system.GetEvents,
    system.SuspendActor,
    system.ResumeActor,
    system.RestartActor,
)
"""What the control socket of any tree answers."""

PUBLIC: dict[str, tuple[type[Message], ...]] = {
    "ControlSocket": (system.GetStatus, system.ShowConfig, *INTROSPECTION),
    "QueueManager": (
        queue.GetQueue,
        queue.GetJob,
        queue.GetHistory,
        queue.WaitAccepted,
        queue.WaitFinished,
        queue.Retry,
        queue.Cancel,
        queue.Move,
        queue.Pause,
        queue.Resume,
        queue.Skip,
        queue.StopAfterFile,
    ),
    "SignalHandler": (system.Stop, system.ReloadConfig),
    "Consolidator": (consolidator.ConsolidateNow, consolidator.GetConsolidator),
    "InboxWatcher": (inbox.Rescan,),
    "DiskMonitor": (disk.GetDisk,),
}
"""Addressees of the control socket, and what each takes from there."""
