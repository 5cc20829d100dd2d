"""P11: consolidation runs only when truly idle, once a day, all or nothing. The time is injected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.daemon import Daemon, open_daemon
from protocol import records
from protocol.messages.queue import Cancel
from protocol.messages.trainer import ConfigChanged
from tests.system.embedded import MovedClock, config, drop, status, until
from tests.system.harness import rows

pytestmark = pytest.mark.anyio

LORA = {"training": {"method": "lora", "lora_rank": 4, "dropout": 0.1}}


def kinds(home: Any) -> list[str]:
    manifests = [
        records.read_record(path / records.MANIFEST, records.VersionManifest)
        for path in sorted(home.versions.iterdir())
    ]
    return [manifest.kind for manifest in manifests]


def look(daemon: Daemon) -> None:
    """Have Consolidator look at the clock now, and not only within its minute."""
    daemon.tree.ref("Consolidator").cast(ConfigChanged(daemon.store.current, daemon.store.revision))


async def nothing_happens(daemon: Daemon, seconds: float = 1.5) -> None:
    """Fail if a consolidation begins within so many seconds, although the clock says that it may."""
    with daemon.tree.stream.subscribe(["state"]) as said:
        look(daemon)
        with anyio.move_on_after(seconds):
            async for entry in said:
                assert entry.data.get("event") != "consolidated"
    assert (await status(daemon)).state != "consolidating"


async def consolidated(daemon: Daemon) -> None:
    """Have Consolidator look at the clock until it has done its work; the model that came of it is promoted."""
    with daemon.tree.stream.subscribe(["state"]) as said, anyio.fail_after(60):
        look(daemon)
        async for entry in said:
            if entry.data.get("event") == "consolidated":
                assert entry.data["outcome"] == "promoted", entry.data
                return
            look(daemon)


@asynccontextmanager
async def growing(path: Path) -> AsyncIterator[None]:
    """A file to which its producer keeps on adding, so that it never settles."""

    async def grow() -> None:
        for number in count():
            with path.open("a") as file:
                file.write(rows(1, number))
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(grow)
        yield
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("settings", "kind"), [({}, "snapshot"), (LORA, "consolidated")], ids=["full", "lora"])
async def test_waits_while_work_is_there_then_runs_once_a_day(tmp_path: Path, settings: Any, kind: str) -> None:
    clock = MovedClock()
    clock.go_to(clock.local().replace(hour=12, minute=0))
    async with open_daemon(tmp_path / "home", config({**settings, "inbox": {"settle": 1.0}}), clock=clock) as daemon:
        home = daemon.home
        drop(daemon, "short.jsonl", rows(20))
        await until(daemon, "trained", lambda s: s.state == "idle" and s.queue.done == 1 and not s.model.behind_steps)
        drop(daemon, "long.jsonl", rows(3000))
        await until(daemon, "training", lambda s: s.job and s.job.file == "long.jsonl" and s.job.step >= 1)
        night = clock.local().replace(hour=3, minute=5) + timedelta(days=1)
        clock.go_to(night)
        await nothing_happens(daemon)  # a file is in processing
        await daemon.tree.ref("QueueManager").call(Cancel("long.jsonl"), timeout=30)
        async with growing(home.inbox / "settling.jsonl"):
            await until(daemon, "a file that settles", lambda s: s.queue.inbox == 1)
            await nothing_happens(daemon)
            assert kind not in kinds(home)
            (home.inbox / "settling.jsonl").unlink()
        (home.inbox / "settling.jsonl").unlink(missing_ok=True)
        await until(daemon, "an empty inbox", lambda s: s.queue.inbox == 0 and s.state == "idle")

        await consolidated(daemon)
        assert kinds(home).count(kind) == 1
        head = records.read_head(home)
        assert head is not None
        assert head.version is not None
        assert home.current.resolve() == home.version(head.version)
        assert records.read_record(home.current / records.MANIFEST, records.VersionManifest).kind == kind

        drop(daemon, "after.jsonl", rows(20, 500))
        await until(daemon, "training goes on", lambda s: s.state == "idle" and s.queue.done == 2)
        clock.go_to(night + timedelta(hours=23, minutes=50))
        await nothing_happens(daemon)  # although there is something new to consolidate
        assert kinds(home).count(kind) == 1, "not twice a day"

        clock.go_to(night + timedelta(days=1))
        await consolidated(daemon)
        assert kinds(home).count(kind) == 2, "and again the next day"
