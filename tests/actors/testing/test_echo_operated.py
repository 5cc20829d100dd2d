"""The commands that look into a running daemon and give orders to its actors, typed at a daemon with EchoTrainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors.daemon import Daemon, open_daemon
from actors.testing.echo import ECHO, ECHO_PRELOAD
from supervisor.testing import eventually
from tests.actors.testing.test_echo_daemon import SETTINGS, drop, published

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


async def cli(daemon: Daemon, *words: str) -> Any:
    """Run a command with ``--json`` against this daemon, and return what it printed."""
    command = [sys.executable, "-P", "-m", "protocol.cli.main", *words, "--json", "--home", str(daemon.home.root)]

    def run() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

    done = await anyio.to_thread.run_sync(run)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_daemon_is_operated_by_hand_and_goes_on_training(tmp_path: Path) -> None:
    async with open_daemon(tmp_path / "home", SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(daemon.home, "a", 12)
        await eventually(lambda: published(daemon, 1), within=60)  # the first file

        state = await cli(daemon, "actor", "state", "TrainerActor")
        assert (state["status"], state["supervisor"], state["incarnation"]) == ("running", "training", 1)
        assert state["pid"] is not None

        await cli(daemon, "actor", "suspend", "QueueManager")
        assert (await cli(daemon, "status"))["warnings"] == [
            "QueueManager is suspended (stokehold actor resume QueueManager)"
        ]
        drop(daemon.home, "b", 12)
        await cli(daemon, "actor", "resume", "QueueManager")
        await eventually(lambda: published(daemon, 2), within=60)  # the file that came while the queue was suspended

        restarted = await cli(daemon, "actor", "restart", "TrainerActor")
        assert (restarted["incarnation"], restarted["pid"] != state["pid"]) == (2, True)
        assert await cli(daemon, "send", "QueueManager", '{"type": "get_queue"}') == []
        drop(daemon.home, "c", 12)
        await eventually(lambda: published(daemon, 3), within=60)  # the file after the restart of the trainer

        # It takes all others along, ControlSocket too, that would have answered.
        assert (await cli(daemon, "actor", "restart", "LockKeeper"))["incarnation"] == 2
        await eventually(
            lambda: daemon.tree.introspection.state("SignalHandler").status == "running", within=60
        )  # the others
        assert daemon.tree.introspection.state("TrainerActor").incarnation == 3
        drop(daemon.home, "d", 12)
        await eventually(lambda: published(daemon, 4), within=60)  # the file after the restart of everything
