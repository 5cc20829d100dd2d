"""P8: stop means stop, gently, in every phase; a second signal at once; P2 to P4 hold after either."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from protocol.client import Client
from tests.system.conftest import BOTH_BACKENDS, MakeDaemon
from tests.system.harness import Daemon, rows, wait_for
from tests.system.kernel import trainer
from tests.system.killing import ROWS, Controls, finish, settings

PHASES = ["loading", "tokenising", "training", "saving"]


def phases(it: Daemon) -> Iterator[str]:
    """Yield each phase that the trainer enters from now on, without delay."""
    with Client.connect(it.home.socket) as client, client.subscribe(["steps"]) as events:
        for event in events:
            phase = getattr(event, "data", {}).get("phase")
            if phase:
                yield phase


@contextmanager
def held_in(it: Daemon, phase: str) -> Iterator[int]:
    """Hold the training process still while it is in this phase of ``a.jsonl``; yield the step that it has come to."""
    for now in phases(it):
        process = trainer(it.pid)
        if now != phase or process is None:
            continue
        os.kill(process.pid, signal.SIGSTOP)
        it.status()  # answered after all that the training process has said until now
        job = it.status()["job"]
        half_written = phase != "saving" or [*it.home.checkpoints.glob(".tmp-*")]
        if job and (job["file"], job["phase"]) == ("a.jsonl", phase) and half_written:
            yield job["step"]
            os.kill(process.pid, signal.SIGCONT)
            return
        os.kill(process.pid, signal.SIGCONT)  # it was over already: the next time
    raise AssertionError(f"it was never seen in this phase: {phase}")


@pytest.mark.parametrize("phase", PHASES)
def test_sigterm_in_each_phase(make_daemon: MakeDaemon, phase: str) -> None:
    it = make_daemon(settings={"checkpoint": {"every_steps": 3}})
    it.home.inbox.mkdir(parents=True)
    it.drop("a.jsonl", rows(3000), folder="high")
    it.drop("b.jsonl", rows(5))
    it.start()
    with held_in(it, phase) as step:
        it.wait_status("b waits", lambda s: s["queue"]["normal"] == 1)
        it.signal(signal.SIGTERM)
        it.wait_status("stopping", lambda s: s["state"] == "stopping")
    assert it.wait(30) == 0
    it.wait_nobody_left()
    places = {"high": it.home.line("high"), "normal": it.home.line("normal"), "low": it.home.line("low")}
    assert {name: it.files(folder) for name, folder in places.items()} == {
        "high": ["a.jsonl"], "normal": ["b.jsonl"], "low": [],
    }  # fmt: skip
    assert it.files(it.home.processing) + it.files(it.home.done) + it.files(it.home.failed) == []
    assert (it.home.line("high") / "a.jsonl").read_text() == rows(3000)
    assert (it.home.line("normal") / "b.jsonl").read_text() == rows(5)

    done = it.cli("checkpoints", "verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert it.head().checkpoint in [found["name"] for found in json.loads(done.stdout)], "a stop ends with a checkpoint"
    assert [*it.home.checkpoints.glob(".*")] == []
    cursors = it.ledger().cursors
    assert [cursor.file for cursor in cursors] == (["a.jsonl"] if phase in ("training", "saving") else [])
    for cursor in cursors:
        assert cursor.stats.samples == cursor.consumed
        assert step <= cursor.stats.steps <= step + 2, "not at the next optimizer step"


@BOTH_BACKENDS
def test_second_sigterm_ends_at_once_and_the_next_start_is_sound(
    make_daemon: MakeDaemon, undisturbed: Controls, backend: str
) -> None:
    control = undisturbed["full"]
    it = make_daemon(settings=settings("full"), backend=backend).start()
    it.drop("a.jsonl", rows(ROWS))
    it.wait_step(13)
    os.kill(it.status()["trainer_pid"], signal.SIGSTOP)  # so that a gentle stop cannot come to its end
    it.signal(signal.SIGTERM)
    it.wait_status("stopping", lambda s: s["state"] == "stopping")
    it.signal(signal.SIGTERM)
    assert it.wait(3) == 143
    it.wait_nobody_left()
    assert it.cli("checkpoints", "verify").returncode == 0
    it.start()
    assert finish(it) == control


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
