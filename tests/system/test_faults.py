"""P6: a failure stays where it happened. Each actor in turn is made to crash, through the fault port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from actors.daemon import Daemon, open_daemon
from actors.status import node
from protocol import records
from protocol.aclient import AsyncClient, connect
from protocol.messages.queue import GetQueue
from protocol.messages.system import Status, TreeNode
from protocol.quick import Failed
from protocol.wire import Code
from tests.system.embedded import config, drop, status, until
from tests.system.harness import rows

pytestmark = pytest.mark.anyio
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])

UNDISTURBING = [
    "DiskMonitor",
    "QueueManager",
    "InboxWatcher",
    "Consolidator",
    "MetricsExporter",
    "SignalHandler",
    "ControlSocket",
]


class Injected(Exception):
    """What the test makes an actor raise."""


def actor(daemon: Daemon, name: str) -> TreeNode:
    found = node(daemon.tree.view(), name)
    assert found is not None
    return found


@asynccontextmanager
async def crash_reports(daemon: Daemon, name: str) -> AsyncIterator[AsyncIterator[Any]]:
    """Events as ``stokehold events`` reads them; but of the socket's own crash its clients can learn nothing."""
    if name == "ControlSocket":
        with daemon.tree.stream.subscribe(["crashes"]) as events:
            yield events
        return
    async with connect(daemon.home.socket) as client, client.subscribe(["crashes"]) as received:
        yield received


def reported(event: Any, name: str, text: str) -> None:
    """See that an event is the crash report of this actor."""
    assert event.data["actor"] == name
    assert f"Injected: {text}" in str(event.data["traceback"])


async def crash(daemon: Daemon, name: str) -> Status:
    """Make an actor crash, see that it is reported, and wait until that actor, and it alone, is back."""
    before = await status(daemon)
    async with crash_reports(daemon, name) as reports:
        daemon.tree.inject_fault(name, Injected(f"into {name}"))
        with anyio.fail_after(30):
            reported(await anext(reports), name, f"into {name}")

    def back(now: Status) -> bool:
        return now.restarts == before.restarts + 1 and actor(daemon, name).status == "running"

    now = await until(daemon, f"{name} back", back)
    assert actor(daemon, name).restarts == 1
    assert now.trainer_pid == before.trainer_pid, f"the training process noticed the crash of {name}"
    return now


async def crashes_counted(daemon: Daemon, crashes: dict[str, int]) -> None:
    """Wait until ``/metrics`` shows that many crashes and restarts of each of these actors."""
    http = (await until(daemon, "the exporter", lambda s: s.http)).http
    assert http is not None
    wanted = {
        line
        for name, count in crashes.items()
        for line in (
            f'stokehold_actor_restarts_total{{actor="{name}"}} {count}.0',
            f'stokehold_actor_exits_total{{actor="{name}",reason="crash"}} {count}.0',
        )
    }
    lacking = wanted
    async with httpx.AsyncClient() as web:
        with anyio.move_on_after(10):
            while lacking:
                metrics = (await web.get(f"http://{http.host}:{http.port}/metrics")).text
                lacking = wanted - set(metrics.splitlines())
    assert not lacking


async def queued(client: AsyncClient) -> list[str]:
    """Ask for the queue. A client of the socket before learns of its end by a first answer that does not come."""
    try:
        queue = await client.call("QueueManager", GetQueue())
    except Failed as error:
        assert error.code == Code.CONNECTION_LOST
        queue = await client.call("QueueManager", GetQueue())
    return [job.file for job in queue]


async def test_each_actor_crashes_alone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path / "home", config({"http": {"port": 0}})) as daemon:
        drop(daemon, "a.jsonl", rows(3000))
        before = await until(daemon, "training", lambda s: s.job and s.job.phase == "training" and s.job.step >= 2)
        assert before.job is not None
        reached = before.job.step
        with daemon.tree.stream.subscribe(["steps"], bound=10_000) as steps:
            async with connect(daemon.home.socket) as client:
                for name in UNDISTURBING:
                    now = await crash(daemon, name)
                    assert await queued(client) == ["a.jsonl"]
            assert now.job is not None
            after = now.job.step + 1
            await until(daemon, "one more step", lambda s: s.job and s.job.step >= after)
            with anyio.fail_after(5):
                async for event in steps:
                    assert event.data["step"] >= reached, "a step was made twice"
                    reached = event.data["step"]
                    if reached >= after:
                        break
        await crashes_counted(daemon, {**dict.fromkeys(UNDISTURBING, 1), "TrainerActor": 0, "LockKeeper": 0})
    head = records.read_head(daemon.home)
    assert head is not None
    assert head.checkpoint is not None
    ledger = records.read_record(daemon.home.checkpoints / head.checkpoint / records.LEDGER, records.Ledger)
    assert [cursor.stats.samples for cursor in ledger.cursors] == [ledger.cursors[0].consumed]
    assert ledger.cursors[0].stats.steps >= reached


@ON_ASYNCIO
async def test_the_trainer_itself_crashes_and_goes_on(tmp_path: Path) -> None:
    settings = {"checkpoint": {"every_steps": 10}, "http": {"port": 0}}
    async with open_daemon(tmp_path / "home", config(settings)) as daemon:
        drop(daemon, "a.jsonl", rows(80))
        before = await until(daemon, "steps", lambda s: s.job and s.job.step >= 12)
        async with crash_reports(daemon, "TrainerActor") as reports:
            daemon.tree.inject_fault("TrainerActor", Injected("into the trainer"))
            with anyio.fail_after(30):
                reported(await anext(reports), "TrainerActor", "into the trainer")
        await until(daemon, "another trainer", lambda s: s.trainer_pid not in (None, before.trainer_pid))
        now = await until(daemon, "trained", lambda s: s.queue.done == 1 and not s.model.behind_steps)
        assert now.restarts == 1
        await crashes_counted(daemon, {**dict.fromkeys(UNDISTURBING, 0), "TrainerActor": 1, "LockKeeper": 0})
    manifest = records.read_record(daemon.home.current / records.MANIFEST, records.VersionManifest)
    (entry,) = manifest.ledger.committed
    assert (entry.stats.samples, entry.stats.steps) == (80, manifest.step), "each once, in spite of the crash"


@ON_ASYNCIO
async def test_lock_keeper_takes_all_with_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path / "home", config({"http": {"port": 0}})) as daemon:
        before = await until(daemon, "the trainer", lambda s: s.trainer_pid)
        with daemon.tree.stream.subscribe(["crashes"]) as reports:  # the socket goes, too
            daemon.tree.inject_fault("LockKeeper", Injected("into LockKeeper"))
            with anyio.fail_after(30):
                reported(await anext(reports), "LockKeeper", "into LockKeeper")
        after = await until(daemon, "another trainer", lambda s: s.trainer_pid not in (None, before.trainer_pid))
        drop(daemon, "a.jsonl", rows(5))
        await until(daemon, "trained", lambda s: s.queue.done == 1)
        assert after.pid == before.pid
        await crashes_counted(daemon, {**dict.fromkeys(UNDISTURBING, 0), "TrainerActor": 0})
        assert actor(daemon, "LockKeeper").restarts == 1
