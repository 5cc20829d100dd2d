"""P2, P3, P4, P9: kill -9 at any time; nothing is lost, nothing is trained twice, the weights are the same bits."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.system.conftest import MakeDaemon
from tests.system.harness import rows
from tests.system.killing import (
    METHODS,
    OFTEN,
    ROWS,
    Controls,
    finish,
    kill_daemon,
    kill_trainer,
    settings,
    train_until_unsaved_steps,
)
from tests.system.sampler import status_is_true

pytestmark = pytest.mark.timeout(300)  # each may have to make its control run first

BY_DEFAULT: dict[str, Any] = {}
CLOSED = {"disk": {"refuse_below": 1 << 60, "warn_below": 1 << 60}}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("backend", "checkpoint"), [("asyncio", BY_DEFAULT), ("trio", OFTEN)], ids=["asyncio-default", "trio-often"]
)
def test_daemon_killed_in_mid_training(
    make_daemon: MakeDaemon, undisturbed: Controls, method: str, backend: str, checkpoint: dict[str, Any]
) -> None:
    it = make_daemon(settings=settings(method, checkpoint), backend=backend)
    control = undisturbed[method]
    train_until_unsaved_steps(it, checkpoint)
    with status_is_true(it):
        kill_daemon(it)
        it.configure({**it.settings, **CLOSED})
        it.start()
        it.wait_status("blocked by the disk", lambda s: s["state"] == "blocked" and "disk" in s["reason"])
        assert it.files(it.home.line("high")) == ["a.jsonl"], "back in its line"
        assert it.files(it.home.processing) == []
        assert [(row["file"], row["attempts"]) for row in it.json("queue", "list")] == [("a.jsonl", 0)]
        it.configure(it.settings)
        assert it.cli("config", "reload").returncode == 0
        assert finish(it) == control


@pytest.mark.parametrize(("method", "checkpoint"), [("full", BY_DEFAULT), ("lora", OFTEN)], ids=["full", "lora"])
def test_trainer_killed_in_mid_training(
    make_daemon: MakeDaemon, undisturbed: Controls, method: str, checkpoint: dict[str, Any]
) -> None:
    it = make_daemon(settings=settings(method, checkpoint))
    control = undisturbed[method]
    train_until_unsaved_steps(it, checkpoint)
    with status_is_true(it):
        kill_trainer(it)
        assert finish(it) == control


@pytest.mark.parametrize("seed", [1])
def test_a_storm_of_kills(make_daemon: MakeDaemon, undisturbed: Controls, seed: int) -> None:
    """Whoever is hit, and however far it has come since the last time."""
    chance = random.Random(seed)
    hits = chance.sample([kill_daemon] * 2 + [kill_trainer] * 3, k=5)
    control = undisturbed["lora"]
    it = make_daemon(settings=settings("lora", {"every_steps": 5})).start()
    it.drop("a.jsonl", rows(ROWS))
    reached = 0
    with status_is_true(it):
        for hit in hits:
            reached += chance.randint(4, 13)
            it.wait_step(reached, "a.jsonl")
            hit(it)
            if hit is kill_daemon:
                it.start()
        assert finish(it) == control
