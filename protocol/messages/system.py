"""What can be said to the daemon as a whole: ControlSocket and SignalHandler answer these."""

from __future__ import annotations

from typing import Any, Literal

from protocol.messages.common import Done, Message, Phase, Priority, Record, Request, TailEvent
from protocol.messages.disk import Level
from protocol.messages.queue import QueueCounts

State = Literal["stopping", "starting", "paused", "blocked", "consolidating", "training", "idle"]


class JobStatus(Record, frozen=True):
    """The file that a live training process holds."""

    id: str
    file: str
    priority: Priority
    attempt: int
    phase: Phase
    step: int
    steps_total: int
    samples_done: int
    samples_total: int
    tokens: int
    loss: float | None
    tokens_per_s: float | None
    eta_s: float | None


class DiskStatus(Record, frozen=True):
    free_bytes: int
    level: Level


class ModelStatus(Record, frozen=True):
    version: int | None
    step: int
    behind_steps: int


class HttpStatus(Record, frozen=True):
    host: str
    port: int


class Status(Record, frozen=True):
    """``status --json``. Made from published snapshots; no actor is asked."""

    state: State
    reason: str | None
    pid: int
    uptime_s: float
    job: JobStatus | None
    queue: QueueCounts
    disk: DiskStatus
    model: ModelStatus
    warnings: list[str]
    http: HttpStatus | None
    restarts: int
    home: str
    trainer_pid: int | None


class TreeNode(Record, frozen=True):
    """One child of the tree, as ``tree --json`` prints it."""

    id: str
    kind: Literal["supervisor", "worker"]
    status: str
    restarts: int
    last_exit: str | None
    uptime_s: float | None
    mailbox: int
    pid: int | None
    children: list[TreeNode]


class ActorState(Record, frozen=True):
    """One actor or supervisor of the tree, as ``actor state --json`` prints it."""

    name: str
    kind: Literal["supervisor", "worker"]
    status: str
    supervisor: str | None
    """Who keeps it up; None of the root."""
    incarnation: int
    pid: int | None
    """Of the process that runs it, where it is one of its own."""
    restarts: int
    uptime_s: float | None
    last_exit: str | None
    traceback: str | None
    """Of the crash that was its last exit."""
    mailbox: int
    """Messages that wait."""
    bound: int
    """Messages that may wait."""
    waiting: dict[str, int]
    """Messages that wait, by type."""
    last_message: str | None
    """The type of the newest message that it began to handle."""
    summary: dict[str, Any]
    """What the actor says of itself."""


class RecentEvents(Record, frozen=True):
    """What happened of late, as far as it is remembered: the newest of each topic, oldest first."""

    topics: list[str]
    """All that may be subscribed to, beside traces."""
    events: list[TailEvent]


class ReloadResult(Record, frozen=True):
    """``applied`` False: nothing was changed, and ``standing_in_the_way`` says which keys do not allow it."""

    applied: bool
    revision: int
    changed: list[str]
    standing_in_the_way: list[str]
    reason: str = ""


class ShownConfig(Record, frozen=True):
    """The configuration in force."""

    revision: int
    values: dict[str, dict[str, Any]]
    """By section and key; sizes in bytes, spans in seconds."""
    written: dict[str, str]
    """Each value as it would stand in a file, by ``section.key``."""
    origins: dict[str, str]
    """Where each value came from, by ``section.key``: ``file:line``, ``default`` or ``command line``."""


# to ControlSocket
class GetStatus(Request[Status], frozen=True):
    """What the daemon does now."""


class GetTree(Request[TreeNode], frozen=True):
    """The tree of actors."""


class GetEvents(Request[RecentEvents], frozen=True):
    """What happened of late on these topics; empty: on all."""

    topics: tuple[str, ...] = ()


class GetActor(Request[ActorState], frozen=True):
    """What one actor does now. Answered also while it is wedged."""

    name: str


class SuspendActor(Request[Done], frozen=True):
    """Have an actor handle nothing until it is resumed or restarted. Answered once its message in hand is done."""

    name: str


class ResumeActor(Request[Done], frozen=True):
    """Have a suspended actor handle its messages again."""

    name: str


class RestartActor(Request[ActorState], frozen=True):
    """Stop an actor and start it again, with those that fall with it. Answered by its new incarnation's state."""

    name: str


class ShowConfig(Request[ShownConfig], frozen=True):
    """The configuration in force."""


# to SignalHandler
class Stop(Request[Done], frozen=True):
    """Stop the daemon. ``gently``: at the next optimizer step with a checkpoint; ``now``: at once, exit 143."""

    mode: Literal["gently", "after_file", "now"] = "gently"


class ReloadConfig(Request[ReloadResult], frozen=True):
    """Read the configuration file again; apply all of it or nothing."""


class GotSignal(Message, frozen=True):
    """The binary received this signal."""

    number: int
