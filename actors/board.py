"""The newest snapshot of each actor, for those who must answer without asking.

``status`` and ``/metrics`` are made from this board alone, so that they answer with any actor wedged. Each attribute
has one owner, who replaces it whole; the values are immutable. The board lives in the daemon's process and outlives
every actor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from protocol.messages.common import Trouble
from protocol.messages.consolidator import ConsolidatorView
from protocol.messages.disk import CheckpointCost, DiskView
from protocol.messages.queue import GateView, QueueCounts
from protocol.messages.system import HttpStatus, ModelStatus
from protocol.messages.trainer import Progress


@dataclass(frozen=True, slots=True)
class Held:
    """The job that the trainer claimed and has not let go of."""

    job: str
    incarnation: int
    """Of TrainerActor. A dead incarnation holds nothing, whatever stands here."""


@dataclass(slots=True)
class Board:
    """One attribute per owner; None or the default until its owner has spoken."""

    started: float = field(default_factory=time.monotonic)
    """When this daemon was begun, in seconds of the monotonic clock."""

    queue: QueueCounts = field(default_factory=QueueCounts)
    """Owner: QueueManager. Its ``inbox`` is not used: see ``inbox_files``."""
    queue_ready: bool = False
    """Owner: QueueManager. True once recovery is over."""
    gate: GateView = field(default_factory=GateView)
    """Owner: QueueManager."""
    held: Held | None = None
    """Owner: QueueManager."""
    claimant: int = 0
    """Owner: QueueManager. The incarnation of TrainerActor that claimed last, until its end has been dealt with."""
    disk: DiskView | None = None
    """Owner: DiskMonitor."""
    checkpoint_cost: CheckpointCost | None = None
    """Owner: DiskMonitor, from what TrainerActor casts once the model is known."""
    progress: Progress | None = None
    """Owner: ControlSocket, from what TrainerActor casts. None: the one that lives now has said nothing yet."""
    model: ModelStatus = field(default_factory=lambda: ModelStatus(version=None, step=0, behind_steps=0))
    """Owner: ControlSocket, from HEAD and from what TrainerActor casts."""
    consolidator: ConsolidatorView | None = None
    """Owner: Consolidator."""
    http: HttpStatus | None = None
    """Owner: MetricsExporter. None: off, or not listening."""
    inbox_files: int = 0
    """Owner: InboxWatcher."""
    stopping: str | None = None
    """Owner: SignalHandler. Why the daemon is on its way out."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """Warnings by actor name; each actor sets and deletes its own."""
