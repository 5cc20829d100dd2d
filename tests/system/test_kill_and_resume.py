"""P2, P3, P4, P9: kill -9 at any time; nothing is lost, nothing is trained twice, the weights are the same bits."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from tests.system.conftest import BOTH_BACKENDS, MakeDaemon
from tests.system.harness import Daemon, alive, rows, wait_for

ROWS = 160
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"training": {"method": "full"}},
    "lora": {"training": {"method": "lora", "dropout": 0.1, "lora_rank": 4}},
}


def settings(method: str) -> dict[str, dict[str, Any]]:
    return {**METHODS[method], "checkpoint": {"every_steps": 10}}


def outcome(it: Daemon) -> tuple[str, list[tuple[str, int, int]]]:
    """The weights' digest and the ledger: what must not depend on any disturbance."""
    ledger = it.ledger()
    return it.manifest().weights_sha256, [(e.file, e.stats.samples, e.stats.steps) for e in ledger.committed]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[tuple[str, int, int]]]]:
    """The outcome of a control run that nobody disturbs, for each method."""
    outcomes = {}
    for method in METHODS:
        from tests.system.harness import daemon

        with daemon(tmp_path_factory.mktemp("control") / method, settings(method)) as it:
            it.start()
            it.drop("a.jsonl", rows(ROWS))
            it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
            it.wait_idle()
            assert it.stop() == 0
            outcomes[method] = outcome(it)
    return outcomes


def finish(it: Daemon) -> None:
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    it.wait_idle()
    history = [row for row in it.json("history") if row["file"] == "a.jsonl"]
    assert [(row["outcome"], row["samples"]) for row in history] == [("trained", ROWS)]
    assert it.stop() == 0


def run_until_unsaved_steps(it: Daemon) -> None:
    """Train until two checkpoints lie there and steps have been made since."""
    it.start()
    it.drop("a.jsonl", rows(ROWS))
    wait_for("two checkpoints", lambda: it.home.checkpoints.is_dir() and len(it.checkpoints()) >= 2, 90)
    base = it.status()["job"]["step"]
    it.wait_status("a step beyond them", lambda s: s["job"] and s["job"]["step"] > base and s["job"]["step"] % 10 >= 3)


@BOTH_BACKENDS
@pytest.mark.parametrize("method", METHODS)
def test_daemon_killed_in_mid_training(
    make_daemon: MakeDaemon, undisturbed: dict[str, Any], method: str, backend: str
) -> None:
    it = make_daemon(settings=settings(method), backend=backend)
    run_until_unsaved_steps(it)
    family = it.kill()
    assert family
    wait_for("all training processes to be gone", lambda: not alive(family), 2.0)
    it.configure({**settings(method), "queue": {}})
    it.start()
    assert it.files(it.home.done) == []
    finish(it)
    assert outcome(it) == undisturbed[method]


@pytest.mark.parametrize("method", METHODS)
def test_trainer_killed_in_mid_training(make_daemon: MakeDaemon, undisturbed: dict[str, Any], method: str) -> None:
    it = make_daemon(settings=settings(method))
    run_until_unsaved_steps(it)
    trainer = it.status()["trainer_pid"]
    assert trainer not in (None, it.pid)
    os.kill(trainer, signal.SIGKILL)
    it.wait_status("another trainer", lambda s: s["trainer_pid"] not in (None, trainer))
    finish(it)
    assert not psutil.pid_exists(trainer)
    assert outcome(it) == undisturbed[method]


def test_file_is_back_in_its_line_at_the_next_start(make_daemon: MakeDaemon) -> None:
    it = make_daemon(settings={"checkpoint": {"every_steps": 10}}).start()
    it.drop("mine.jsonl", rows(ROWS), folder="high")
    it.wait_step(3)
    assert it.files(it.home.processing) == ["mine.jsonl"]
    it.kill()
    it.configure({"disk": {"refuse_below": 1 << 60, "warn_below": 1 << 60}})
    it.start()
    it.wait_status("blocked by the disk", lambda s: s["state"] == "blocked")
    assert it.files(it.home.line("high")) == ["mine.jsonl"]
    assert it.files(it.home.processing) == []
    assert it.json("queue", "list")[0]["attempts"] == 0
