"""What a session trains, as the session sees it: a learner, and the engine that makes learners.

Session, keeper, recovery and consolidation know nothing else of the model, and import no tensor library. The engine of
torch is ``torch_engine.py``; ``actors.testing`` has one of pure Python, so that a crash test with it proves the same
session and the same keeper that train real models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from actors.inbox.rows import Row
from actors.trainer.checkpoint import TensorCodec
from protocol.config import Config, TrainingSection

Groups = dict[str, dict[str, Any]]
"""Tensors by file stem, then by name; of the type that the engine's codec knows."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as the model sees it."""

    ids: list[int]
    trained: list[bool]
    """For each token whether predicting it bears loss. Nothing predicts the first one, so it never counts."""

    @property
    def targets(self) -> int:
        """Tokens that bear loss, counted after the shift."""
        return sum(self.trained[1:])


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    """Mean over the tokens that bore loss, before the step."""
    tokens: int
    """Tokens that bore loss."""
    seen: int
    """Tokens in all, prompts included, padding not."""
    grad_norm: float
    learning_rate: float


class Unlike(Exception):
    """A merged model, read back from disk, does not say what base and adapter say. The text tells how far it is off."""


class RowEncoder(Protocol):
    """Turns rows into tokens, under one job's length limit."""

    def encode(self, row: Row) -> Encoded:
        """Return the row's tokens.

        Raises:
            BadRow: nothing of it can be trained; the text says why.
        """


class Learner(Protocol):
    """A model with its optimizer and its random states. One at a time; used from the training thread only."""

    @property
    def method(self) -> Literal["full", "lora"]: ...

    @property
    def device(self) -> object:
        """What computes; its ``str`` is shown to people."""

    def encoder(self, training: TrainingSection) -> RowEncoder:
        """Return what makes tokens of a job's rows."""

    def begin_job(self, training: TrainingSection) -> list[str]:
        """Take over the settings of the job that is trained next. Return which of them cannot be kept, and why."""

    def step(
        self, rows: Sequence[Encoded], number: int, training: TrainingSection, beat: Callable[[], None]
    ) -> StepResult:
        """Make one optimizer step, the lineage's ``number``-th (from 0). ``beat`` is called after each pass."""

    def capture(self) -> tuple[Groups, dict[str, Any]]:
        """Return tensors, and state for JSON: all that the next step depends on. Uncopied: no step while it is held."""

    def restore(self, groups: Groups, state: Mapping[str, Any]) -> None:
        """Put a checkpoint back; the random states come last. ``groups`` is emptied on the way, to hold nothing twice.

        Raises:
            WrongShape: the checkpoint is of another model or method.
        """

    def rewarm(self, step: int) -> None:
        """The optimizer is fresh from this step of the lineage on: warm up from there."""

    def save_version(self, folder: Path) -> None:
        """Write the full model and its tokenizer into ``folder``. Training does not notice."""

    def checkpoint_bytes(self) -> int:
        """Estimate of a checkpoint, in bytes."""

    def version_bytes(self) -> int:
        """Estimate of a version, in bytes."""


class WrongShape(Exception):
    """A checkpoint does not fit the model that the settings describe."""


class Engine(Protocol):
    """Makes learners, and knows what their bits depend on."""

    @property
    def codec(self) -> TensorCodec:
        """How its tensors become bytes in a checkpoint."""

    def prepare(self, config: Config) -> None:
        """Called once, first of all, in the training thread."""

    def identity(self, config: Config) -> dict[str, str]:
        """Return what the bits of a run depend on, beside its settings and its data."""

    def load(self, config: Config) -> Learner:
        """Return a learner on the model that ``model.source`` names, its random states seeded."""

    def reload(self, folder: Path, config: Config) -> Learner:
        """The same on the model in a version's folder."""

    def merge(self, learner: Learner, folder: Path, config: Config) -> Learner:
        """Return a learner with a fresh adapter on the model in ``folder``, which holds ``learner``'s, merged.

        It draws from the random states as they are, so that no night is like the one before.

        Raises:
            Unlike: the folder does not hold what ``learner`` says. Its random states are as they were.
        """

    def release(self) -> None:
        """Give the device's memory back to the system. No learner is left."""
