"""P1: one daemon per home. The kernel's lock decides; never a file's existence, never a pid."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.system.conftest import BOTH_BACKENDS, MakeDaemon
from tests.system.harness import alive, rows, wait_for


def listing(root: Path) -> dict[str, float]:
    """Every path below a folder with its time of change; sockets and databases move on their own and are left out."""
    return {
        str(path): path.lstat().st_mtime
        for path in sorted(root.rglob("*"))
        if "sqlite3" not in path.name and path.parent.name != "logs" and path.is_dir() is False
    }


@BOTH_BACKENDS
def test_start_trains_a_file_and_stops(make_daemon: MakeDaemon, backend: str) -> None:
    it = make_daemon(backend=backend).start()
    it.drop("x.jsonl", rows(12))
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    it.wait_idle()
    assert it.stop() == 0
    assert it.files(it.home.done) == ["x.jsonl"]
    assert it.manifest().version == it.head().version


@BOTH_BACKENDS
def test_second_daemon_is_refused_and_touches_nothing(make_daemon: MakeDaemon, backend: str) -> None:
    first = make_daemon(backend=backend).start()
    before = listing(first.home.root)
    second = first.popen()
    assert second.wait(30) == 1
    assert f"Another daemon is running (PID {first.pid})" in first.stderr.read_text()
    assert listing(first.home.root) == before
    assert first.status()["pid"] == first.pid


def test_refused_daemon_makes_no_folder(make_daemon: MakeDaemon) -> None:
    first = make_daemon().start()
    os.rmdir(first.home.queue / "low")
    second = first.popen()
    assert second.wait(30) == 1
    assert not (first.home.queue / "low").exists()


@BOTH_BACKENDS
def test_kill_9_leaves_no_lock_and_no_process(make_daemon: MakeDaemon, backend: str) -> None:
    it = make_daemon(backend=backend).start()
    it.wait_status("the trainer", lambda s: s["trainer_pid"])
    family = it.kill()
    assert family, "the trainer and its host were there"
    wait_for("all descendants to be gone", lambda: not alive(family), 2.0)
    it.start()
    assert it.stop() == 0


@pytest.mark.parametrize("content", ["pid of a live stranger", "rubbish", "empty"])
def test_content_of_the_lock_file_decides_nothing(make_daemon: MakeDaemon, content: str) -> None:
    it = make_daemon()
    it.home.run.mkdir(parents=True)
    it.home.lock.write_text(
        {"pid of a live stranger": json.dumps({"pid": os.getpid()}), "rubbish": "12x", "empty": ""}[content]
    )
    it.start()
    assert it.status()["pid"] == it.pid
