"""Runs the real session and the real keeper on Echo's engine, in this process, and says what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from actors.testing.echo_engine import EchoEngine
from actors.trainer.port import Wish
from actors.trainer.publish import verify_version, versions
from actors.trainer.session import Session
from actors.trainer.shelf import Shelf
from protocol.config import CheckpointSection, Config, PublishSection, TrainingSection
from protocol.home import Home
from protocol.messages.queue import Claimed
from protocol.records import read_head
from supervisor.durable import Disk
from tests.actors.trainer.fake_port import FakePort, make_home, put


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may catch it."""


BATCH = 110
"""Holds four of the rows below: a token is a byte of the row."""
FIRST = [{"text": f"first {n}"} for n in range(22)]
SECOND = [{"text": f"second {n}"} for n in range(9)]
STEPS = 2 * (6 + 3)
"""Optimizer steps for two epochs of both."""


def settings(**training: Any) -> Config:
    return Config(
        training=msgspec.convert({"epochs": 2, "batch_tokens": BATCH} | training, TrainingSection),
        checkpoint=CheckpointSection(every_steps=3),
        publish=PublishSection(keep=2),
    )


def new_home(root: Path) -> Home:
    home = make_home(root)
    (home.run / "echo-step").write_text("0")
    return home


def two(home: Home) -> list[Claimed]:
    return [put(home, "a", FIRST), put(home, "b", SECOND)]


def run(home: Home, port: FakePort, disk: Disk | None = None) -> FakePort:
    Session(home, disk or Disk(), port, EchoEngine(home)).run()
    return port


def outcome(home: Home) -> tuple[str, list[tuple[str, int]], str]:
    """Return the published weights' digest, who was trained how often, and the kind of the current version.

    All that is named is whole.
    """
    head = read_head(home)
    assert head is not None and head.checkpoint is not None and head.version is not None
    Shelf(home).verify(head.checkpoint)
    assert verify_version(home, head.version) is None
    (current,) = [one for one in versions(home) if one.version == head.version]
    assert home.current.resolve() == home.version(head.version)
    ledger = Shelf(home).ledger(head.checkpoint)
    assert not ledger.cursors
    return current.weights_sha256, sorted((entry.job, entry.stats.samples) for entry in ledger.committed), current.kind


def control(root: Path, config: Config) -> tuple[str, list[tuple[str, int]], str]:
    """Return the outcome of a run that nothing disturbs."""
    home = new_home(root)
    run(home, FakePort(config, two(home)))
    return outcome(home)


@dataclass
class After:
    """Wishes for something from the so-manieth look on, until it is granted."""

    looks: int
    wish: Wish
    granted: Callable[[], bool] = lambda: False

    def __call__(self, job: str | None) -> Wish | None:
        self.looks -= 1
        return self.wish if self.looks < 0 and not self.granted() else None
