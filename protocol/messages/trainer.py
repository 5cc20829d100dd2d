"""What can be said to TrainerActor, and what it tells."""

from __future__ import annotations

from typing import Literal

from protocol.config import Config
from protocol.messages.common import Message, Phase, Priority, Record, Request


class Yield(Message, frozen=True):
    """Let go of the running job at the next optimizer step, with a checkpoint; then ``queue.Release`` it."""

    id: str
    why: Literal["pause", "skip", "cancel", "disk"]


class GateOpened(Message, frozen=True):
    """There may be work: claim again."""


class ConfigChanged(Message, frozen=True):
    """A new configuration snapshot; what is marked live or next-job in it takes effect from now."""

    config: Config
    revision: int


class ConsolidationResult(Record, frozen=True):
    """How a consolidation ended. ``reason`` says why it was refused, or what was made."""

    outcome: Literal["promoted", "refused"]
    reason: str
    version: int | None = None


class RunConsolidation(Request[ConsolidationResult], frozen=True):
    """Merge the adapter into the base (LoRA) or take a snapshot (full). The caller holds the maintenance lease."""

    lease: str


class Progress(Message, frozen=True):
    """Cast by the trainer after each optimizer step, and at each change of phase, to the board's keeper."""

    id: str | None
    file: str | None
    priority: Priority | None
    attempt: int
    phase: Phase | None
    step: int
    """Optimizer steps in this job, from its cursor on."""
    steps_total: int
    samples_done: int
    samples_total: int
    tokens: int
    loss: float | None
    tokens_per_s: float | None
    eta_s: float | None
    global_step: int
    """Optimizer steps of the lineage."""
    version: int | None
    """The published version."""
    behind_steps: int
    """Optimizer steps trained and not yet published."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    device: str | None = None
    blocked: str | None = None
    """Why the trainer waits although it holds or wants work (disk, all checkpoints torn), or None."""
    remedy: str | None = None
