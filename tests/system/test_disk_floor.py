"""P5: low disk stops new work, costs no attempt, and work goes on by itself when space returns."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import BOTH_BACKENDS, MakeDaemon
from tests.system.harness import daemon, rows, wait_for

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
    assert it.json("queue", "list")[0]["attempts"] == 0
    it.configure(ALWAYS)
    reloaded = it.cli("config", "reload")
    assert reloaded.returncode == 0, reloaded.stderr
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    assert it.json("history")[0]["interruptions"] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system that is soon full."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_checkpoint_on_a_full_disk_loses_nothing(small_disk: Path) -> None:
    with daemon(small_disk / "home", {"checkpoint": {"every_steps": 10}, **ALWAYS}) as it:
        it.start()
        it.drop("a.jsonl", rows(250))
        wait_for("a first checkpoint", lambda: it.home.checkpoints.is_dir() and it.checkpoints(), 60)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(MIB))
            except OSError:
                pass
        it.wait_status("blocked for want of room", lambda s: s["state"] == "blocked", 60)
        assert [p.name for p in it.home.checkpoints.iterdir() if p.name.startswith(".tmp")] == []
        filler.unlink()
        it.wait_status("trained", lambda s: s["queue"]["done"] == 1, 120)
        it.wait_idle()
        row = it.json("history")[0]
        assert (row["outcome"], row["samples"]) == ("trained", 250)
        assert it.cli("checkpoints", "verify").returncode == 0
        it.signal(signal.SIGTERM)
        assert it.wait() == 0
