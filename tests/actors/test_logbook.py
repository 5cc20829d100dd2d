"""The log: what the event stream carries, as JSON lines, whatever is in it and however full the disk is."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.logbook import KEPT, NAME, TOPICS, keep_logbook
from actors.settings_store import ConfigStore
from protocol.config import Config, DaemonSection
from protocol.home import Home
from protocol.messages.queue import QueueCounts
from supervisor import EventStream, SystemClock
from supervisor.testing import eventually, settle

pytestmark = pytest.mark.anyio


async def log(
    home: Home, config: Config, entries: list[tuple[str, dict[Any, object]]], *, read: bool = True
) -> list[dict[str, object]]:
    """Publish the entries, let the logbook write them, and return the lines of the current file."""
    home.logs.mkdir(parents=True, exist_ok=True)
    stream = EventStream(SystemClock())
    subscription = stream.subscribe(TOPICS, bound=10_000)
    for topic, data in entries:
        stream.publish(topic, data)
    stream.close()
    with anyio.fail_after(30):
        await keep_logbook(home, ConfigStore(config), subscription)
    path = home.logs / NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if read and path.exists() else []


async def test_each_topic_becomes_lines(tmp_path: Path) -> None:
    lines = await log(
        Home(tmp_path),
        Config(),
        [
            ("logs", {"level": "warning", "event": "command", "actor": "ControlSocket"}),
            ("crashes", {"actor": "QueueManager", "traceback": "Traceback\n  there"}),
            ("state", {"event": "disk", "disk_level": "low"}),
            ("steps", {"step": 1}),
        ],
    )
    assert [(line["topic"], line["level"], line["event"]) for line in lines] == [
        ("logs", "warning", "command"),
        ("crashes", "error", "crashed"),
        ("state", "info", "disk"),
    ]
    assert all("ts" in line for line in lines)


async def test_a_name_that_is_no_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    (line,) = await log(Home(tmp_path), Config(), [("queue", {"event": "accepted", "file": "caf\udce9.jsonl"})])
    assert line["file"] == "caf\udce9.jsonl"


async def test_what_json_has_no_form_for_is_written_as_text(tmp_path: Path) -> None:
    odd = {"event": "accepted", "path": tmp_path, "at": datetime(2026, 3, 4, tzinfo=UTC), "job": QueueCounts(high=1)}
    (line,) = await log(Home(tmp_path), Config(), [("queue", {**odd, ("no", "key"): 1})])
    assert (line["path"], line["at"]) == (str(tmp_path), "2026-03-04T00:00:00Z")
    assert isinstance(line["job"], dict) and line["job"]["high"] == 1


async def test_below_the_level_is_left_out(tmp_path: Path) -> None:
    config = Config(daemon=DaemonSection(log_level="warning"))
    lines = await log(Home(tmp_path), config, [("queue", {"event": "accepted"}), ("crashes", {"actor": "x"})])
    assert [line["topic"] for line in lines] == ["crashes"]


async def test_rotated_by_size(tmp_path: Path) -> None:
    home = Home(tmp_path)
    config = Config(daemon=DaemonSection(log_bytes=64 * 1024))
    await log(home, config, [("queue", {"event": "accepted", "text": "x" * 1000}) for _ in range(1000)])
    files = sorted(path.name for path in home.logs.iterdir())
    assert files == [NAME, *(f"{NAME}.{number}" for number in range(1, KEPT + 1))]
    assert all(path.stat().st_size <= 64 * 1024 for path in home.logs.iterdir())


async def test_a_log_that_cannot_be_written_ends_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.logs.mkdir()
    (home.logs / NAME).symlink_to("/dev/full")
    assert await log(home, Config(), [("queue", {"event": "accepted"})], read=False) == []


@asynccontextmanager
async def kept(home: Home, bound: int = 10_000) -> AsyncIterator[EventStream]:
    """A stream whose log is kept until the end of the block."""
    home.logs.mkdir(exist_ok=True)
    stream = EventStream(SystemClock())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_logbook, home, ConfigStore(Config()), stream.subscribe(TOPICS, bound))
        yield stream
        tasks.cancel_scope.cancel()


def written(home: Home) -> list[str]:
    try:
        return [json.loads(line)["event"] for line in (home.logs / NAME).read_text().splitlines()]
    except FileNotFoundError:
        return []


async def test_what_was_lost_is_counted_and_told_when_there_is_room_again(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.logs.mkdir()
    log = home.logs / NAME
    log.symlink_to("/dev/full")
    written_out: list[object] = []

    class Marker:
        def __str__(self) -> str:
            written_out.append(self)
            return "its turn has come"

    async with kept(home) as stream:
        await settle()
        for value in (1, 2, Marker()):
            stream.publish("queue", {"event": "into the void", "value": value})
        await eventually(lambda: bool(written_out))  # so the two before it are lost
        log.unlink()
        await eventually(lambda: stream.publish("queue", {"event": "accepted"}) or "accepted" in written(home))
    first = json.loads(log.read_text().splitlines()[0])
    assert first["event"] == "log_entries_lost"
    assert first["count"] >= 2


async def test_more_at_once_than_may_wait_is_counted(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with kept(home, bound=4) as stream:
        await settle()
        for _ in range(10):
            stream.publish("queue", {"event": "accepted"})
        await eventually(lambda: len(written(home)) == 5)
    assert json.loads((home.logs / NAME).read_text().splitlines()[0])["count"] == 6


async def test_a_log_that_somebody_deleted_is_begun_anew_folder_and_all(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with kept(home) as stream:
        stream.publish("queue", {"event": "one"})
        await eventually(lambda: written(home) == ["one"])
        shutil.rmtree(home.logs)
        stream.publish("queue", {"event": "two"})
        await eventually(lambda: written(home) == ["two"])


async def test_the_last_words_are_written(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with kept(home) as stream:
        stream.publish("queue", {"event": "one"})
        await eventually(lambda: written(home) == ["one"])
        stream.publish("queue", {"event": "stopped"})
    assert written(home) == ["one", "stopped"]
