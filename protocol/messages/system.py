"""What can be said to the daemon as a whole: ControlSocket and SignalHandler answer these."""

from __future__ import annotations

from typing import Any, Literal

from protocol.messages.common import Done, Message, Phase, Priority, Record, Request
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
