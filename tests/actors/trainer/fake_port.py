"""A port without actors: a list of files for a queue, and a record of all that was told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from actors.trainer.port import LetGo, LetGoReason, Stop, Wish
from protocol.config import CheckpointSection, Config, ModelSection, TrainingSection
from protocol.home import Home
from protocol.messages.common import BadLine, Phase
from protocol.messages.disk import Purpose, Reserved
from protocol.messages.queue import Claimed, ClaimReply, Committed, JobStats, NoWork, Published
from protocol.messages.trainer import ConsolidationResult, Progress


def settings(source: str = "tiny", checkpoint: dict[str, Any] | None = None, **training: Any) -> Config:
    """Settings of a test: one thread, small steps, and no checkpoint in between unless asked for."""
    defaults: dict[str, Any] = {
        "threads": 1, "batch_tokens": 48, "micro_batch_tokens": 32, "max_length": 32, "warmup_steps": 3,
        "learning_rate": 1e-2,
    }  # fmt: skip
    return Config(
        model=ModelSection(source=source),
        training=msgspec.convert(defaults | training, TrainingSection),
        checkpoint=msgspec.convert(checkpoint or {}, CheckpointSection),
    )


def make_home(root: Path) -> Home:
    home = Home(root)
    for folder in home.folders:
        folder.mkdir(exist_ok=True)
    return home


def put(home: Home, name: str, rows: Sequence[object], **more: Any) -> Claimed:
    """Put a file into ``processing/`` and return it as a claimed job."""
    path = home.processing / name
    data = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(data)
    return Claimed(name, name, str(path), hashlib.sha256(data).hexdigest(), "normal", 1, **more)


@dataclass
class FakePort:
    """``asks`` is called at each look with the name of the job held; what it returns is what is wanted."""

    settings: Config
    jobs: list[Claimed] = field(default_factory=list)
    asks: Callable[[str | None], Wish | None] = lambda job: None
    room: Callable[[Purpose], bool] = lambda purpose: True
    awaiting: list[Claimed] = field(default_factory=list)
    """Trained and not yet committed: the next process gets them first."""
    told: list[Any] = field(default_factory=list)
    steps: list[Progress] = field(default_factory=list)
    phases: list[tuple[str, Phase]] = field(default_factory=list)
    waits: int = 0
    rested: bool = False

    def config(self) -> Config:
        return self.settings

    def wanted(self, job: str | None = None) -> Wish | None:
        wish = Stop() if self.rested else self.asks(job)
        return None if isinstance(wish, LetGo) and wish.id != job else wish

    def wait(self, seconds: float) -> None:
        self.waits += 1

    def claim(self, wait_s: float) -> ClaimReply:
        if self.jobs:
            return ClaimReply(job=self.jobs[0])
        self.rested = wait_s > 0  # the session has nothing left to do: the test is over
        return ClaimReply(none=NoWork("empty"))

    def phase(self, job: str, phase: Phase) -> None:
        self.phases.append((job, phase))

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)

    def _gone(self, job: str) -> None:
        self.jobs = [one for one in self.jobs if one.id != job]

    def trained(self, job: str, stats: JobStats) -> None:
        self.awaiting += [one for one in self.jobs if one.id == job]
        self._gone(job)
        self.told.append(("trained", job, stats))

    def committed(self, told: Committed) -> None:
        done = {one.id for one in told.jobs}
        self.awaiting = [one for one in self.awaiting if one.id not in done]
        self.jobs = [one for one in self.jobs if one.id not in done]
        self.told.append(told)

    def published(self, told: Published) -> None:
        self.told.append(told)

    def release(self, job: str, why: LetGoReason, stats: JobStats) -> None:
        if why != "stop":
            self.jobs.sort(key=lambda one: one.id == job)  # to the back
        self.told.append(("release", job, why, stats))

    def refused(self, job: str, reason: str, lines: tuple[BadLine, ...]) -> None:
        self._gone(job)
        self.told.append(("refused", job, reason, lines))

    def reserve(self, size: int, purpose: Purpose, wait_s: float) -> Reserved:
        granted = self.room(purpose)
        return Reserved("token", granted, "" if granted else "the disk is full")

    def unreserve(self, token: str) -> None:
        assert token == "token"

    def cost(self, checkpoint_bytes: int, version_bytes: int) -> None:
        assert checkpoint_bytes > 0
        assert version_bytes > 0

    def write_failed(self, path: str, error: str) -> None:
        self.told.append(("write failed", path, error))

    def warn(self, what: str) -> None:
        self.told.append(("warned", what))

    def beat(self, phase: str, limit: float | None = None) -> None:
        return

    def consolidated(self, result: ConsolidationResult) -> None:
        self.told.append(result)

    def of(self, kind: Any) -> list[Any]:
        """What was told of one kind: a message class, or the first word of a tuple."""
        if isinstance(kind, str):
            return [one for one in self.told if isinstance(one, tuple) and one[0] == kind]
        return [one for one in self.told if isinstance(one, kind)]
