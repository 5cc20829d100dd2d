"""A control: where bits must differ they do, so that the tests that find them equal could have failed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from actors.daemon import open_daemon
from protocol import records
from tests.system.embedded import config, drop, until
from tests.system.harness import rows
from tests.system.killing import OFTEN, ROWS, Controls, entries, settings

FORGETFUL = "tests.system.trainers:ForgetfulTrainer"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_random_states_that_are_not_put_back_show_in_the_weights(tmp_path: Path, undisturbed: Controls) -> None:
    """LoRA with dropout, its trainer killed once: every sample counts once, and yet the bits are others."""
    async with open_daemon(tmp_path / "home", config(settings("lora", OFTEN)), trainer=FORGETFUL) as daemon:
        drop(daemon, "a.jsonl", rows(ROWS))
        before = await until(daemon, "unsaved steps", lambda s: s.job and s.job.step >= 14)
        assert before.trainer_pid is not None
        os.kill(before.trainer_pid, signal.SIGKILL)
        await until(daemon, "trained", lambda s: s.queue.done == 1 and not s.model.behind_steps)
    manifest = records.read_record(daemon.home.current / records.MANIFEST, records.VersionManifest)
    weights, ledger = undisturbed["lora"]
    losses = ("first_loss", "last_loss")
    counts = [
        [{name: value for name, value in entry["stats"].items() if name not in losses} for entry in one]
        for one in (entries(manifest.ledger), ledger)
    ]
    assert counts[0] == counts[1]
    assert manifest.weights_sha256 != weights
