"""P1: one daemon per home. The kernel's lock decides; never a file's existence, never a pid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import BOTH_BACKENDS, MakeDaemon
from tests.system.harness import CLI, ROOT, alive, rows, wait_for
from tests.system.kernel import maps_torch


def listing(root: Path) -> dict[str, float]:
    """Return every path below a folder, and when it changed. What the living daemon itself writes at any time, its log
    and database, bears no time; nor do folders, in which those files come and go."""
    return {
        str(path): 0.0
        if path.is_dir() or "sqlite3" in path.name or path.parent.name == "logs"
        else path.lstat().st_mtime
        for path in sorted(root.rglob("*"))
    }


@BOTH_BACKENDS
def test_start_trains_a_file_and_stops(make_daemon: MakeDaemon, backend: str) -> None:
    it = make_daemon(backend=backend).start()
    it.drop("x.jsonl", rows(40))
    training = it.wait_step(1)
    assert maps_torch(training["trainer_pid"])
    assert not maps_torch(it.pid), "the daemon's own process has torch in its memory while it trains"
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    it.wait_idle()
    assert it.stop() == 0
    assert it.files(it.home.done) == ["x.jsonl"]
    assert it.manifest().version == it.head().version


@BOTH_BACKENDS
def test_second_daemon_is_refused_and_touches_nothing(make_daemon: MakeDaemon, backend: str) -> None:
    first = make_daemon(backend=backend).start()
    os.rmdir(first.home.line("low"))  # a second daemon must not even mend it
    before = listing(first.home.root)
    said = first.stderr.read_text()
    second = first.popen()
    assert second.wait(30) == 1
    (line,) = first.stderr.read_text().removeprefix(said).splitlines()
    assert f"Another daemon is running (PID {first.pid})" in line
    assert listing(first.home.root) == before
    assert str(second.pid) not in "".join(log.read_text() for log in first.home.logs.iterdir())
    assert first.status()["pid"] == first.pid


@BOTH_BACKENDS
def test_after_kill_9_the_next_starts_at_once(make_daemon: MakeDaemon, backend: str) -> None:
    """Also when the lock file has come to name a process that lives and has nothing to do with it."""
    it = make_daemon(backend=backend).start()
    it.wait_status("the trainer", lambda s: s["trainer_pid"])
    family = it.kill()
    assert family, "the trainer and its host were there"
    wait_for("all descendants to be gone", lambda: not alive(family), 2.0)
    left = json.loads(it.home.lock.read_text())
    assert left["pid"] == it.pid
    it.home.lock.write_text(json.dumps({**left, "pid": os.getpid()}))
    it.start(seconds=10)
    assert it.status()["pid"] == it.pid
    assert it.stop() == 0


@pytest.mark.parametrize("content", ['{"pid": 1}', "12x", ""])
def test_content_of_the_lock_file_decides_nothing(make_daemon: MakeDaemon, content: str) -> None:
    it = make_daemon()
    it.home.run.mkdir(parents=True)
    it.home.lock.write_text(content)
    it.start()
    assert it.status()["pid"] == it.pid


def test_status_imports_no_torch(make_daemon: MakeDaemon) -> None:
    it = make_daemon().start()
    command = [sys.executable, "-X", "importtime", *CLI[1:], "status", "--home", str(it.home.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "protocol.cli.status" in imported
    assert not {name for name in imported if name.split(".")[0] in ("torch", "transformers", "msgspec", "anyio")}
    assert str(it.pid) in done.stdout
