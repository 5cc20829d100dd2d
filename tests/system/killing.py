"""What the tests that kill have in common: the job, what must come of it, and how to get to the moment."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from actors.trainer.tensorfile import weights_sha256
from protocol.records import Ledger
from tests.system.harness import Daemon, alive, daemon, rows, wait_for

ROWS = 160
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "dropout": 0.1, "lora_rank": 4},
}
OFTEN = {"every_steps": 10}
"""Checkpoints by steps. Without it they come by cost and time, as they do by default."""

Outcome = tuple[str, list[dict[str, Any]]]
"""The digest of the published weights, and the ledger: all that is said of each committed job, but for its id."""


def settings(method: str, checkpoint: dict[str, Any] = OFTEN) -> dict[str, dict[str, Any]]:
    return {"training": METHODS[method], "checkpoint": checkpoint}


def outcome(it: Daemon) -> Outcome:
    """Return what must not depend on any disturbance."""
    weights = weights_sha256(it.home.current)
    assert weights == it.manifest().weights_sha256, "what is published is not what its manifest says"
    assert it.manifest().ledger == it.ledger()
    return weights, entries(it.ledger())


def entries(ledger: Ledger) -> list[dict[str, Any]]:
    """Return what a ledger says of each committed job, but for its id."""
    found: list[dict[str, Any]] = msgspec.to_builtins(ledger.committed)
    for entry in found:
        del entry["job"]
    return list(found)


def finish(it: Daemon) -> Outcome:
    """Let the job come to its end, see that it counts once, stop, and return the outcome."""
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    it.wait_idle()
    history = [(row["file"], row["outcome"], row["samples"]) for row in it.json("history")]
    assert history == [("a.jsonl", "trained", ROWS)]
    assert it.ledger().disturbances == ()
    assert it.stop() == 0
    return outcome(it)


def control_run(root: Path, method: str) -> Outcome:
    """Train the job in a home of its own, and disturb nothing."""
    with daemon(root, settings(method)) as it:
        it.start()
        it.drop("a.jsonl", rows(ROWS))
        return finish(it)


class Controls:
    """The outcome of an undisturbed run of each method, made once for all tests, also of other test processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def home(self, method: str) -> Path:
        """Return the home of that run; its daemon has stopped."""
        root = self._folder / f"control-{method}"
        with (self._folder / f"control-{method}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._known(method).exists():
                self._known(method).write_text(json.dumps(control_run(root, method)))
        return root

    def __getitem__(self, method: str) -> Outcome:
        self.home(method)
        weights, ledger = json.loads(self._known(method).read_text())
        return weights, ledger

    def _known(self, method: str) -> Path:
        return self._folder / f"control-{method}.json"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Controls:
    base = tmp_path_factory.getbasetemp()
    return Controls(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


def kill_trainer(it: Daemon) -> None:
    """kill -9 the training process alone, and wait for the next one."""
    trainer = it.status()["trainer_pid"]
    assert trainer not in (None, it.pid)
    os.kill(trainer, signal.SIGKILL)
    it.wait_status("another trainer", lambda s: s["trainer_pid"] not in (None, trainer))
    assert not psutil.pid_exists(trainer)


def kill_daemon(it: Daemon) -> None:
    """kill -9 the daemon, and see that nothing of it is left after two seconds."""
    family = it.kill()
    assert len(family) >= 2, "the host and the training process were there"
    wait_for("all training processes to be gone", lambda: not alive(family), 2.0)
    it.wait_nobody_left()


def train_until_unsaved_steps(it: Daemon, checkpoint: dict[str, Any]) -> None:
    """Start, and train until two checkpoints hold a part of the job and steps were made since the newer one."""
    it.start()
    it.drop("a.jsonl", rows(ROWS), folder="high")
    it.wait_step(1, "a.jsonl")
    seen = {0}
    while len(seen) < 3:  # the first checkpoint is of step 0, before the job
        if checkpoint == OFTEN:
            it.wait_step(it.status()["job"]["step"] + 1)
        else:
            let_time_pass(it, 2.6)
        seen.add(newest_step(it))
    saved = max(seen)
    it.wait_status("steps beyond the checkpoint", lambda s: s["job"] and s["job"]["step"] >= saved + 3)
    assert newest_step(it) == saved, "these steps are saved, too: the kill would prove nothing"


def newest_step(it: Daemon) -> int:
    """Return the step of the newest checkpoint; the first is of step 0, before the job."""
    return int(it.checkpoints()[-1].split("-")[1])


def let_time_pass(it: Daemon, seconds: float) -> None:
    """Hold the training process for so long, so that a checkpoint falls due by time, and let it make a step."""
    now = it.status()
    os.kill(now["trainer_pid"], signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(now["trainer_pid"], signal.SIGCONT)
    it.wait_step(now["job"]["step"] + 1)
