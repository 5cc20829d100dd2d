"""EchoTrainer in the real daemon: its process is killed again and again, and nothing is lost, doubled or different."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from actors.daemon import Daemon, open_daemon
from actors.testing.echo import ECHO, ECHO_PRELOAD
from actors.trainer.publish import versions
from actors.trainer.shelf import Shelf
from protocol.config import (
    CheckpointSection,
    Config,
    ConsolidationSection,
    DiskSection,
    HttpSection,
    InboxSection,
    TrainingSection,
)
from protocol.home import Home
from protocol.messages.system import TreeNode
from protocol.records import read_head
from supervisor.testing import eventually

pytestmark = pytest.mark.anyio

SETTINGS = Config(
    inbox=InboxSection(settle=0, rescan=0.5),
    disk=DiskSection(refuse_below=0, warn_below=0),
    training=TrainingSection(epochs=2, batch_tokens=110),
    checkpoint=CheckpointSection(every_steps=4),
    consolidation=ConsolidationSection(enabled=False),
    http=HttpSection(port=-1),
)


def trainer_pid(node: TreeNode) -> int | None:
    if node.id == "TrainerActor":
        return node.pid
    return next((pid for child in node.children if (pid := trainer_pid(child)) is not None), None)


def drop(home: Home, name: str, rows: int) -> None:
    (home.root / f"{name}.tmp").write_text("".join(json.dumps({"text": f"{name} {n}"}) + "\n" for n in range(rows)))
    (home.root / f"{name}.tmp").rename(home.inbox / f"{name}.jsonl")


def published(daemon: Daemon, jobs: int) -> bool:
    progress = daemon.board.progress
    return daemon.board.queue.done == jobs and progress is not None and progress.behind_steps == 0


async def train(root: Path, kills: int) -> tuple[str, list[tuple[str, int, int]], int]:
    """Train two files, one after the other, killing the process ``kills`` times in each; return what came of it."""
    home, died = Home(root), 0
    async with open_daemon(root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        (home.run / "echo-step").write_text("0.02" if kills else "0")
        for number, (name, rows) in enumerate((("first", 90), ("second", 70)), 1):
            drop(home, name, rows)
            for kill in range(1, kills + 1):
                await eventually(partial(trained_to, daemon, name, 10 * kill), within=60)
                await kill_trainer(daemon)
                died += 1
            await eventually(partial(published, daemon, number), within=60)
    head = read_head(home)
    assert head is not None and head.checkpoint is not None
    ledger = Shelf(home).ledger(head.checkpoint)
    weights = next(one.weights_sha256 for one in versions(home) if one.version == head.version)
    return weights, [(one.file, one.stats.samples, one.stats.steps) for one in ledger.committed], died


async def kill_trainer(daemon: Daemon) -> None:
    """Kill -9 the training process and wait until another has taken its place."""
    pid = trainer_pid(daemon.tree.view())
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: trainer_pid(daemon.tree.view()) not in (None, pid), within=60)


def trained_to(daemon: Daemon, name: str, step: int) -> bool:
    progress = daemon.board.progress
    return progress is not None and progress.file == f"{name}.jsonl" and progress.step >= step


async def test_a_trainer_killed_again_and_again_ends_at_the_same_weights(tmp_path: Path) -> None:
    weights, ledger, _ = await train(tmp_path / "control", 0)
    assert ledger == [("first.jsonl", 180, 46), ("second.jsonl", 140, 36)]
    disturbed = await train(tmp_path / "killed", 2)
    assert disturbed == (weights, ledger, 4)


async def test_a_torn_checkpoint_stands_in_the_log(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "first", 30)
        await eventually(partial(published, daemon, 1), within=60)
    head = read_head(home)
    assert head is not None and head.checkpoint is not None
    (home.checkpoints / head.checkpoint / "state.json").write_text("{")
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD):
        log = home.logs / "stokehold.log"
        await eventually(lambda: f"{head.checkpoint} is torn" in log.read_text(), within=60)
        await eventually(lambda: committed(home) == [("first.jsonl", 60)], within=60)  # from the one before


def committed(home: Home) -> list[tuple[str, int]]:
    head = read_head(home)
    assert head is not None and head.checkpoint is not None
    return [(one.file, one.stats.samples) for one in Shelf(home).ledger(head.checkpoint).committed]
