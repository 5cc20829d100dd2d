"""P5: low disk stops new work, costs no attempt, and work goes on by itself when space returns."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.conftest import BOTH_BACKENDS, MakeDaemon
from tests.system.harness import Daemon, daemon, rows, wait_for
from tests.system.kernel import trainer
from tests.system.killing import ROWS, Controls, finish, settings

MIB = 1 << 20
NEVER = {"disk": {"refuse_below": 1 << 60, "warn_below": 1 << 60, "every": 0.2}}
ALWAYS = {"disk": {"refuse_below": 0, "warn_below": 0, "every": 0.2}}


@BOTH_BACKENDS
def test_nothing_trains_below_the_floor_until_it_is_lowered(make_daemon: MakeDaemon, backend: str) -> None:
    it = make_daemon(settings=NEVER, backend=backend).start()
    it.drop("a.jsonl", rows(10))
    now = it.wait_status("blocked", lambda s: s["state"] == "blocked" and s["queue"]["normal"] == 1)
    assert "disk" in now["reason"]
    assert "stokehold" in now["reason"], "the command that ends it"
    assert now["disk"]["level"] == "critical"
    it.wait_status("a training process", lambda s: s["trainer_pid"])
    wait_for_rest(it)
    assert it.status()["state"] == "blocked"
    assert it.files(it.home.line("normal")) == ["a.jsonl"]
    assert it.json("queue", "list")[0]["attempts"] == 0
    it.configure(ALWAYS)
    reloaded = it.cli("config", "reload")
    assert reloaded.returncode == 0, reloaded.stderr
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    assert it.json("history")[0]["interruptions"] == 0


def wait_for_rest(it: Daemon) -> None:
    """Wait until the training process has used no processor for half a second: it waits for something."""
    since, before = time.monotonic(), trainer(it.pid)

    def rests() -> bool:
        nonlocal since, before
        now = trainer(it.pid)
        if now is None or now.worked_since(before):
            since, before = time.monotonic(), now
        return time.monotonic() - since > 0.5

    wait_for("the training process to rest", rests)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system that is soon full."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full to the last byte."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))


@contextlib.contextmanager
def held_in_a_save(it: Daemon) -> Iterator[str]:
    """Hold the training process still in the middle of writing a checkpoint of the job; yield its folder's name."""
    it.wait_step(1, "a.jsonl")
    pid = it.status()["trainer_pid"]

    def half_written() -> list[str]:
        return [path.name for path in it.home.checkpoints.glob(".tmp-*")]

    def caught() -> str | None:
        if not half_written():
            return None
        os.kill(pid, signal.SIGSTOP)
        wait_for("it to be held", lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 5)
        if found := half_written():
            return found[0]
        os.kill(pid, signal.SIGCONT)
        return None

    deadline = time.monotonic() + 60
    while not (name := caught()):
        assert time.monotonic() < deadline, "no checkpoint was seen to be written"
    yield name
    os.kill(pid, signal.SIGCONT)


@BOTH_BACKENDS
def test_checkpoint_on_a_full_disk_loses_nothing(small_disk: Path, undisturbed: Controls, backend: str) -> None:
    """The disk becomes full while the checkpoint is being written, so that no reservation can foresee it."""
    control = undisturbed["full"]
    filler = small_disk / "filler"
    with daemon(small_disk / "home", {**settings("full"), **ALWAYS}, backend) as it:
        it.start()
        it.drop("a.jsonl", rows(ROWS))
        with held_in_a_save(it) as half_written:
            fill(filler)
        it.wait_status("blocked for want of room", lambda s: s["state"] == "blocked", 60)
        left = [path.name for path in it.home.checkpoints.iterdir()]
        assert half_written not in left
        assert left == it.checkpoints(), "no temporary folder is left"
        step = it.status()["job"]["step"]
        wait_for_rest(it)
        assert it.status()["job"]["step"] == step
        filler.unlink()
        assert finish(it) == control
        assert it.cli("checkpoints", "verify").returncode == 0
