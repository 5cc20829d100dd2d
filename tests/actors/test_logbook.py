"""The log: what the event stream carries, as JSON lines, whatever is in it and however full the disk is."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from actors.logbook import KEPT, NAME, TOPICS, keep_logbook
from actors.settings_store import ConfigStore
from protocol.config import Config, DaemonSection
from protocol.home import Home
from supervisor import EventStream, SystemClock

pytestmark = pytest.mark.anyio


async def log(home: Home, config: Config, entries: list[tuple[str, dict[str, object]]]) -> list[dict[str, object]]:
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
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
        ("crashes", "error", "crashes"),
        ("state", "info", "disk"),
    ]
    assert all("ts" in line for line in lines)


async def test_a_name_that_is_no_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    (line,) = await log(Home(tmp_path), Config(), [("queue", {"event": "accepted", "file": "caf\udce9.jsonl"})])
    assert line["file"] == "caf\udce9.jsonl"


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
    stream = EventStream(SystemClock())
    subscription = stream.subscribe(TOPICS)
    stream.publish("queue", {"event": "accepted"})
    stream.close()
    with anyio.fail_after(30):
        await keep_logbook(home, ConfigStore(Config()), subscription)
