"""P8: stop means stop, gently, in every phase; a second signal at once; P2 to P4 hold after either."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from protocol.client import Client
from tests.system.conftest import BOTH_BACKENDS, MakeDaemon
from tests.system.harness import Daemon, rows, wait_for

PHASES = ["loading", "tokenising", "training", "saving"]


def phases(it: Daemon) -> Iterator[str]:
    """Yield each phase that the trainer enters from now on, without delay."""
    with Client.connect(it.home.socket) as client, client.subscribe(["steps"]) as events:
        for event in events:
            phase = getattr(event, "data", {}).get("phase")
            if phase:
                yield phase


def checked_after_stop(it: Daemon) -> None:
    """Every checkpoint is whole, and what waits or was in hand is still there, once."""
    done = it.cli("checkpoints", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [name for line in ("high", "normal", "low") for name in it.files(it.home.line(line))]  # type: ignore[arg-type]
    everything = lines + it.files(it.home.processing) + it.files(it.home.done)
    assert sorted(everything) == ["a.jsonl", "b.jsonl"]
    assert it.files(it.home.failed) == []


@pytest.mark.parametrize("phase", PHASES)
def test_sigterm_in_each_phase(make_daemon: MakeDaemon, phase: str) -> None:
    it = make_daemon(settings={"checkpoint": {"every_steps": 3}}).start()
    seen = phases(it)
    it.drop("a.jsonl", rows(3000))
    it.drop("b.jsonl", rows(5))
    for now in seen:
        if now == phase:
            break
    it.signal(signal.SIGTERM)
    assert it.wait(30) == 0
    checked_after_stop(it)
    assert it.files(it.home.done) == []
    if phase in ("training", "saving"):
        ledger = it.ledger()
        assert [cursor.file for cursor in ledger.cursors] == ["a.jsonl"]
        assert ledger.cursors[0].consumed > 0


@BOTH_BACKENDS
def test_second_sigterm_ends_at_once_and_the_next_start_is_sound(make_daemon: MakeDaemon, backend: str) -> None:
    it = make_daemon(backend=backend).start()
    it.drop("a.jsonl", rows(300))
    it.drop("b.jsonl", rows(5))
    it.wait_step(3)
    os.kill(it.status()["trainer_pid"], signal.SIGSTOP)  # so that a gentle stop cannot come to its end
    it.signal(signal.SIGTERM)
    it.wait_status("stopping", lambda s: s["state"] == "stopping")
    it.signal(signal.SIGTERM)
    assert it.wait(5) == 143
    it.start()
    it.wait_step(1, "a.jsonl")
    assert it.stop() == 0
    checked_after_stop(it)


def test_each_way_to_stop_saves_and_publishes_nothing_and_the_next_start_does_what_is_owed(
    make_daemon: MakeDaemon,
) -> None:
    it = make_daemon().start()
    it.drop("a.jsonl", rows(200))
    it.wait_step(3)
    version = it.head().version
    stopped = it.cli("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert it.wait(5) == 0
    first = it.ledger().cursors[0].consumed
    assert first > 0
    assert it.head().version == version

    it.start()
    it.wait_status("going on", lambda s: s["job"] and s["job"]["samples_done"] > first)
    it.home.stop_file.touch()
    assert it.wait(30) == 0
    assert not it.home.stop_file.exists(), "an obeyed .stop is removed"
    assert it.ledger().cursors[0].consumed > first
    assert it.head().version == version

    it.start()
    it.wait_idle()
    assert [(entry.file, entry.stats.samples) for entry in it.manifest().ledger.committed] == [("a.jsonl", 200)]
    assert it.head().version == it.manifest().version > (version or 0)


def test_stale_stop_file_is_removed_and_reported(make_daemon: MakeDaemon) -> None:
    it = make_daemon()
    it.home.root.mkdir()
    it.home.stop_file.touch()
    it.start()
    wait_for("the stale file to go", lambda: not it.home.stop_file.exists(), 60)
    assert ".stop" in it.cli("logs").stdout
    assert it.status()["state"] == "idle"


def test_stop_after_file(make_daemon: MakeDaemon) -> None:
    it = make_daemon().start()
    it.drop("a.jsonl", rows(60))
    it.wait_step(1, "a.jsonl")
    it.drop("b.jsonl", rows(10, start=1000))
    it.wait_status("b waits", lambda s: s["queue"]["normal"] == 1)
    assert it.cli("stop", "--after-file").returncode == 0
    assert it.wait(60) == 0
    assert it.files(it.home.done) == ["a.jsonl"]
    assert it.files(it.home.line("normal")) == ["b.jsonl"]
    it.start()
    it.wait_status("b trained: the request does not haunt the next run", lambda s: s["queue"]["done"] == 2)
