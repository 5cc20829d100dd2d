"""Keeps the picture that ``status`` shows of training, and sends it when it changes."""

from __future__ import annotations

import time

from actors.trainer.engine import StepResult
from actors.trainer.job import Job
from actors.trainer.lineage import Lineage
from actors.trainer.port import Port
from protocol.messages.common import Phase
from protocol.messages.queue import Claimed
from protocol.messages.trainer import Progress

SMOOTHING = 0.1
"""Weight of the newest step in the running means of speed."""


class Reporter:
    """One per session. Costs no tensor operation and draws no random number."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._claimed: Claimed | None = None
        self._job: Job | None = None
        self._phase: Phase | None = None
        self._last: StepResult | None = None
        self._blocked: tuple[str, str | None] | None = None
        self._phase_before: Phase | None = None
        self._stepped_at = self._saving_since = 0.0
        self._tokens_per_s: float | None = None
        self._steps_per_s: float | None = None
        self.lineage: Lineage | None = None
        self.device: str | None = None

    def enter(self, claimed: Claimed, phase: Phase) -> None:
        """The job enters a phase."""
        self._claimed, self._phase = claimed, phase
        self._port.phase(claimed.id, phase)
        self.tell()

    def begin(self, job: Job) -> None:
        """The job's rows are known."""
        self._job, self._last = job, None
        self._tokens_per_s = self._steps_per_s = None
        self._stepped_at = time.monotonic()

    def stepped(self, done: StepResult) -> None:
        """An optimizer step was made."""
        now = time.monotonic()
        took, self._stepped_at = max(1e-6, now - self._stepped_at), now
        self._tokens_per_s = _smooth(self._tokens_per_s, done.seen / took)
        self._steps_per_s = _smooth(self._steps_per_s, 1 / took)
        self._last = done
        self.tell()

    def saving(self, on: bool) -> None:
        """A checkpoint or version is being written, or was; its time is not counted as training."""
        if self._claimed is None:
            return
        if on:
            self._phase_before, self._saving_since = self._phase, time.monotonic()
            self.enter(self._claimed, "saving")
            return
        self._stepped_at += time.monotonic() - self._saving_since
        if self._phase_before is not None:
            self.enter(self._claimed, self._phase_before)

    def blocked(self, why: str | None, remedy: str | None = None) -> None:
        """Training waits for something, and this is what ends it; or None: it goes on."""
        self._blocked = (why, remedy) if why is not None else None
        self.tell()

    def rest(self) -> None:
        """No job is held."""
        self._claimed = self._job = self._phase = self._last = None
        self.tell()

    def tell(self) -> None:
        claimed, job, last, lineage = self._claimed, self._job, self._last, self.lineage
        stats = job.stats if job else None
        left = max(0, job.steps_total - job.stats.steps) if job else 0
        self._port.progress(
            Progress(
                id=claimed.id if claimed else None,
                file=claimed.file if claimed else None,
                priority=claimed.priority if claimed else None,
                attempt=claimed.attempt if claimed else 0,
                phase=self._phase,
                step=stats.steps if stats else 0,
                steps_total=job.steps_total if job else 0,
                samples_done=stats.rows if stats else 0,
                samples_total=job.samples_total if job else 0,
                tokens=stats.tokens if stats else 0,
                loss=stats.last_loss if stats else None,
                tokens_per_s=self._tokens_per_s if job else None,
                eta_s=left / self._steps_per_s if job and self._steps_per_s else None,
                global_step=lineage.step if lineage else 0,
                version=lineage.version if lineage else None,
                behind_steps=lineage.behind if lineage else 0,
                learning_rate=last.learning_rate if last else None,
                grad_norm=last.grad_norm if last else None,
                device=self.device,
                blocked=self._blocked[0] if self._blocked else None,
                remedy=self._blocked[1] if self._blocked else None,
            )
        )


def _smooth(mean: float | None, new: float) -> float:
    return new if mean is None else mean + SMOOTHING * (new - mean)
