"""P2, P3: kill -9 between a checkpoint and HEAD, and between HEAD and the SQLite commit that follows it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

from protocol.records import MANIFEST
from tests.system.conftest import MakeDaemon
from tests.system.harness import ROOT, Daemon, rows
from tests.system.kernel import MARK
from tests.system.killing import ROWS, Controls, finish, settings


def die(it: Daemon, gap: str) -> None:
    """Run the daemon until it is killed in this gap."""
    command = [sys.executable, "-m", "tests.system.dying", str(it.home.root), str(it.config), gap]
    with it.stderr.open("a") as stderr:
        environment = {**os.environ, MARK: str(it.home.root)}
        done = subprocess.run(command, cwd=ROOT, stdout=stderr, stderr=stderr, timeout=90, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, it.stderr.read_text()[-3000:]
    it.wait_nobody_left()


def row(it: Daemon) -> tuple[str, int]:
    """Return what SQLite knows of the job: its state, and how far it is in the newest checkpoint."""
    with closing(sqlite3.connect(it.home.database)) as database:
        found: tuple[str, int] = database.execute("SELECT state, progress FROM jobs").fetchone()
    return found


def test_killed_in_each_gap_in_turn(make_daemon: MakeDaemon, undisturbed: Controls) -> None:
    it = make_daemon(settings=settings("full"))
    it.home.inbox.mkdir(parents=True)
    it.drop("a.jsonl", rows(ROWS))

    die(it, "before-head")
    first, whole = it.checkpoints()
    assert it.head().checkpoint == first
    assert (it.home.checkpoints / whole / MANIFEST).exists()
    assert row(it) == ("processing", 0)

    die(it, "unfinished")
    assert it.head().checkpoint not in (first, whole)
    assert it.ledger().cursors[0].consumed > 0
    assert row(it) == ("processing", 0)

    die(it, "finished")
    assert [entry.file for entry in it.ledger().committed] == ["a.jsonl"]
    assert row(it)[0] == "trained"
    assert it.files(it.home.processing) == ["a.jsonl"]
    assert it.files(it.home.done) == []

    it.start()
    assert finish(it) == undisturbed["full"]
    assert it.files(it.home.done) == ["a.jsonl"]


def test_killed_before_sqlite_has_heard_of_half_a_job(make_daemon: MakeDaemon, undisturbed: Controls) -> None:
    """With LoRA and dropout: the random states, too, are those that HEAD's checkpoint holds."""
    it = make_daemon(settings=settings("lora"))
    it.home.inbox.mkdir(parents=True)
    it.drop("a.jsonl", rows(ROWS))
    die(it, "unfinished")
    assert it.ledger().cursors[0].consumed > 0
    assert row(it) == ("processing", 0)
    it.start()
    assert finish(it) == undisturbed["lora"]
