"""P6: a failure stays where it happened. Each actor in turn is made to crash, through the fault port."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx
import pytest

from actors.daemon import open_daemon
from actors.status import node
from protocol.aclient import connect
from protocol.messages.queue import GetQueue
from tests.system.embedded import config, drop, status, until
from tests.system.harness import rows

pytestmark = pytest.mark.anyio

UNDISTURBED = [
    "DiskMonitor",
    "QueueManager",
    "ControlSocket",
    "InboxWatcher",
    "Consolidator",
    "MetricsExporter",
    "SignalHandler",
]


class Injected(Exception):
    """What the test makes an actor raise."""


async def test_each_actor_crashes_alone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path / "home", config({"http": {"port": 0}})) as daemon:
        drop(daemon, "a.jsonl", rows(3000))
        before = await until(daemon, "training", lambda s: s.job and s.job.phase == "training" and s.job.step >= 2)
        for name in UNDISTURBED:
            with daemon.tree.stream.subscribe(["crashes"]) as crashes:
                restarts = node(daemon.tree.view(), name).restarts  # type: ignore[union-attr]
                daemon.tree.inject_fault(name, Injected(f"into {name}"))
                with anyio.fail_after(30):
                    report = await anext(crashes)
                assert report.data["actor"] == name
                assert "Injected" in str(report.data["error"])
                assert f"into {name}" in str(report.data)
            now = await until(
                daemon,
                f"{name} back",
                lambda s, n=name, r=restarts: (
                    node(daemon.tree.view(), n).restarts == r + 1  # type: ignore[misc,union-attr]
                    and node(daemon.tree.view(), n).status == "running"
                ),  # type: ignore[union-attr]
            )
            assert now.trainer_pid == before.trainer_pid, f"the trainer noticed the crash of {name}"
        after = await until(daemon, "more steps", lambda s: s.job and s.job.step > before.job.step)  # type: ignore[union-attr]
        assert after.trainer_pid == before.trainer_pid
        assert after.restarts == before.restarts + len(UNDISTURBED)
        http = (await until(daemon, "the exporter", lambda s: s.http)).http
        assert http is not None
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://{http.host}:{http.port}/metrics")).text
        for name in UNDISTURBED:
            if name != "MetricsExporter":
                assert f'stokehold_actor_restarts_total{{actor="{name}"}} 1.0' in metrics


async def test_clients_come_back_after_control_socket(tmp_path: Path) -> None:
    async with open_daemon(tmp_path / "home", config()) as daemon:
        async with connect(daemon.home.socket) as client:
            assert await client.call("QueueManager", GetQueue()) == []
        daemon.tree.inject_fault("ControlSocket", Injected())
        await until(daemon, "the socket", lambda s: s.restarts == 1)
        async with connect(daemon.home.socket) as client:
            assert await client.call("QueueManager", GetQueue()) == []


async def test_the_trainer_itself_crashes_and_goes_on(tmp_path: Path) -> None:
    async with open_daemon(tmp_path / "home", config({"checkpoint": {"every_steps": 10}})) as daemon:
        drop(daemon, "a.jsonl", rows(200))
        before = await until(daemon, "steps", lambda s: s.job and s.job.step >= 12)
        daemon.tree.inject_fault("TrainerActor", Injected("into the trainer"))
        await until(daemon, "another trainer", lambda s: s.trainer_pid not in (None, before.trainer_pid))
        await until(daemon, "trained", lambda s: s.queue.done == 1)
        assert (await status(daemon)).restarts == 1


async def test_lock_keeper_takes_all_with_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path / "home", config()) as daemon:
        before = await until(daemon, "the trainer", lambda s: s.trainer_pid)
        daemon.tree.inject_fault("LockKeeper", Injected())
        after = await until(daemon, "another trainer", lambda s: s.trainer_pid not in (None, before.trainer_pid))
        drop(daemon, "a.jsonl", rows(5))
        await until(daemon, "trained", lambda s: s.queue.done == 1)
        assert after.pid == before.pid
