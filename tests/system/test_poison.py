"""P7: a file that makes training fail each time is tried three times; then it stands aside and says why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from protocol.client import Client
from tests.system.conftest import MakeDaemon
from tests.system.harness import rows
from tests.system.poison import poisoned_model, poisoned_rows


def events(it: Any, file: str, last: str) -> list[str]:
    """Return what happens to a file from now on, up to the event named."""
    found: list[str] = []
    with Client.connect(it.home.socket) as client, client.subscribe(["queue"]) as said:
        assert it.cli("resume").returncode == 0
        for event in said:
            data = getattr(event, "data", {})
            if data.get("file") == file:
                found.append(data["event"])
                if found[-1] == last:
                    return found
    raise AssertionError(f"the events ended: {found}")


def test_three_attempts_then_failed_and_the_next_file_trains(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    poisoned_model(tmp_path / "model")
    it = make_daemon(settings={"model": {"source": str(tmp_path / "model")}, "training": {"batch_tokens": 128}})
    it.start()
    assert it.cli("pause").returncode == 0
    it.drop("poison.jsonl", poisoned_rows(3))
    it.wait_status("poison waits", lambda s: s["queue"]["normal"] == 1)
    it.drop("good.jsonl", rows(20))
    it.wait_status("both wait", lambda s: s["queue"]["normal"] == 2)
    assert events(it, "poison.jsonl", "failed") == [
        "claimed", "attempt_failed", "claimed", "attempt_failed", "claimed", "failed",
    ]  # fmt: skip
    assert it.files(it.home.failed) == ["poison.jsonl"]
    error = json.loads((it.home.failed / "poison.jsonl.error.json").read_text())
    assert error["attempts"] == 3
    assert "NotFinite" in error["reason"]
    assert error["traceback"].startswith("Traceback")
    assert "actors/trainer/" in error["traceback"]

    it.drop("next.jsonl", rows(20, start=1000))
    it.wait_status("the next file trained", lambda s: s["queue"]["done"] == 2)
    now = it.wait_idle()
    assert now["restarts"] == 3, "each attempt ended a training process, and nothing else ended"
    history = {row["file"]: row for row in it.json("history")}
    assert {file: row["outcome"] for file, row in history.items()} == {
        "poison.jsonl": "failed", "good.jsonl": "trained", "next.jsonl": "trained",
    }  # fmt: skip
    assert history["poison.jsonl"]["samples"] == 0
    for file in ("good.jsonl", "next.jsonl"):
        assert history[file]["samples"] == 20
        assert math.isfinite(history[file]["last_loss"])
    assert [entry.file for entry in it.ledger().committed] == ["good.jsonl", "next.jsonl"]
