"""P11: consolidation runs only when truly idle, once a day, all or nothing. The time is injected."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.daemon import open_daemon
from protocol import records
from protocol.messages.queue import Pause, Resume
from tests.system.embedded import MovedClock, config, drop, until
from tests.system.harness import rows

pytestmark = pytest.mark.anyio

LORA = {"training": {"method": "lora", "lora_rank": 4, "dropout": 0.1}}


def kinds(home: Any) -> list[str]:
    manifests = [
        records.read_record(path / records.MANIFEST, records.VersionManifest)
        for path in sorted(home.versions.iterdir())
    ]
    return [manifest.kind for manifest in manifests]


@pytest.mark.parametrize(("settings", "kind"), [({}, "snapshot"), (LORA, "consolidated")], ids=["full", "lora"])
async def test_waits_while_work_is_there_then_runs_once_a_day(tmp_path: Path, settings: Any, kind: str) -> None:
    clock = MovedClock()
    clock.go_to(clock.local().replace(hour=12, minute=0))
    async with open_daemon(tmp_path / "home", config({**settings, "inbox": {"settle": 3600}}), clock=clock) as daemon:
        home = daemon.home
        queue = daemon.tree.ref("QueueManager")
        drop(daemon, "settling.jsonl", rows(30))
        await until(daemon, "a file that settles", lambda s: s.queue.inbox == 1)
        night = clock.local().replace(hour=3, minute=5) + timedelta(days=1)
        clock.go_to(night)
        with daemon.tree.stream.subscribe(["state"]) as said:
            daemon.tree.inject_fault("Consolidator", RuntimeError("look now"))
            with anyio.move_on_after(3):
                async for entry in said:
                    assert entry.data.get("event") != "consolidated"
        assert kind not in kinds(home), "a file is settling in the inbox"
        (home.inbox / "settling.jsonl").unlink()
        drop(daemon, "waiting.jsonl", rows(2))
        (home.inbox / "waiting.jsonl").unlink()

        await queue.call(Pause())
        await queue.call(Resume())
        await until(daemon, "consolidated", lambda s: kind in kinds(home) or s.state == "consolidating", 120)
        await until(daemon, "over", lambda s: s.state == "idle" and kind in kinds(home), 120)
        assert kinds(home).count(kind) == 1
        assert records.read_head(home) is not None

        clock.go_to(night + timedelta(hours=3))
        with anyio.move_on_after(3):
            await until(daemon, "a second one the same day", lambda s: kinds(home).count(kind) == 2, 10)
        assert kinds(home).count(kind) == 1
