"""One job in training: its settings, its rows, and how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from actors.trainer.data import Index, PayloadChanged, count_steps, row_order, take_step
from actors.trainer.engine import StepResult
from protocol.config import Config, DataSection, EvaluationSection, TrainingSection
from protocol.messages.queue import Claimed, JobStats
from protocol.records import Cursor, LedgerEntry


class JobSettings(msgspec.Struct, frozen=True):
    """The tables that a job keeps from its first step to its end, whatever is changed meanwhile."""

    data: DataSection
    training: TrainingSection
    evaluation: EvaluationSection

    @classmethod
    def now(cls, config: Config) -> JobSettings:
        return cls(config.data, config.training, config.evaluation)

    @classmethod
    def kept(cls, cursor: Cursor) -> JobSettings:
        """Return the settings that a cursor carries."""
        return msgspec.convert(cursor.settings, cls)


@dataclass(slots=True)
class Job:
    """A claimed job, its rows indexed. It moves on by whole optimizer steps."""

    claimed: Claimed
    settings: JobSettings
    index: Index
    epoch: int
    position: int
    stats: JobStats
    order: Sequence[int]
    tables: dict[str, dict[str, Any]]
    """``settings`` as the cursor carries them."""
    steps_total: int = 0
    """Of the whole job, counted over all its interruptions; epochs to come are estimated by this one."""

    @classmethod
    def begin(cls, claimed: Claimed, settings: JobSettings, index: Index, cursor: Cursor | None) -> Job:
        """Return the job at its cursor, or at its first row.

        Raises:
            PayloadChanged: the cursor counts other rows than the file has: tokenizer or template are others by now.
        """
        if cursor is not None and cursor.rows != len(index):
            raise PayloadChanged(
                f"{claimed.file} had {cursor.rows} training rows when it began and has {len(index)} now, after "
                f"{cursor.consumed} were trained"
            )
        stats = cursor.stats if cursor else JobStats(held_out=index.held_out, refused=index.refused)
        epoch, position = (cursor.epoch, cursor.position) if cursor else (0, 0)
        job = cls(claimed, settings, index, epoch, position, stats, range(0), msgspec.to_builtins(settings))
        job._open_epoch()
        return job

    @property
    def finished(self) -> bool:
        return self.epoch >= self.settings.training.epochs or not len(self.index)

    @property
    def samples_total(self) -> int:
        return len(self.index)

    def next_rows(self) -> list[int]:
        """Return the rows of the next optimizer step. A step spans neither two jobs nor two epochs."""
        return take_step(self.order, self.position, self.index.lengths, self.settings.training.batch_tokens)

    def advance(self, rows: int, done: StepResult) -> None:
        """Note that the next ``rows`` rows were trained in one step."""
        self.position += rows
        self.stats = JobStats(
            samples=self.stats.samples + rows,
            rows=min(self.stats.samples + rows, len(self.index)),  # the first pass takes each once
            held_out=self.stats.held_out,
            refused=self.stats.refused,
            tokens=self.stats.tokens + done.tokens,
            steps=self.stats.steps + 1,
            first_loss=done.loss if self.stats.first_loss is None else self.stats.first_loss,
            last_loss=done.loss,
        )
        if self.position >= len(self.index):
            self.epoch, self.position = self.epoch + 1, 0
            self._open_epoch()

    def cursor(self) -> Cursor:
        training = self.settings.training
        return Cursor(
            job=self.claimed.id,
            file=self.claimed.file,
            sha256=self.claimed.sha256,
            epoch=self.epoch,
            position=self.position,
            epochs=training.epochs,
            rows=len(self.index),
            seed=training.seed,
            stats=self.stats,
            settings=self.tables,
        )

    def entry(self, step: int) -> LedgerEntry:
        """Return the job's line in the ledger, once it is finished at the lineage's ``step``."""
        return LedgerEntry(
            job=self.claimed.id,
            file=self.claimed.file,
            sha256=self.claimed.sha256,
            epochs=self.settings.training.epochs,
            rows=len(self.index),
            stats=self.stats,
            step=step,
        )

    def _open_epoch(self) -> None:
        if self.finished:
            self.steps_total = self.stats.steps
            return
        training, lengths = self.settings.training, self.index.lengths
        shuffle = self.settings.data.shuffle
        self.order = row_order(len(self.index), training.seed, self.epoch, self.claimed.sha256, shuffle)
        left = count_steps(self.order, self.position, lengths, training.batch_tokens)
        later = training.epochs - 1 - self.epoch
        whole = count_steps(self.order, 0, lengths, training.batch_tokens) if later else 0
        self.steps_total = self.stats.steps + left + later * whole
