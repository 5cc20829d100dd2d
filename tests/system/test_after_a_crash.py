"""P10: state is derived, not remembered."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from tests.system.conftest import MakeDaemon
from tests.system.harness import Daemon, rows


def test_pause_survives_a_crash_and_a_stop_request_does_not(make_daemon: MakeDaemon) -> None:
    it = make_daemon().start()
    it.drop("a.jsonl", rows(300))
    it.wait_step(3)
    assert it.cli("pause").returncode == 0
    now = it.status()
    assert now["state"] == "paused"
    saved = it.ledger().cursors[0].consumed
    assert saved > 0, "pause ends with a checkpoint"
    it.kill()
    it.home.stop_file.touch()
    it.start()
    now = it.wait_status("paused still", lambda s: s["state"] == "paused")
    assert "resume" in now["reason"]
    assert it.cli("resume").returncode == 0
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1, 120)
    assert it.ledger().committed[0].stats.samples == 300


class Sampler(threading.Thread):
    """Compares, 20 times a second, what ``status`` says with what the kernel knows of the trainer."""

    def __init__(self, it: Daemon) -> None:
        super().__init__(daemon=True)
        self.it = it
        self.over = threading.Event()
        self.lies: list[str] = []
        self.samples = 0
        self._wrong_since: float | None = None

    def run(self) -> None:
        while not self.over.wait(0.05):
            said = self.it.try_status()
            if said is None:
                self._wrong_since = None
                continue
            self.samples += 1
            self._judge(said)

    def _judge(self, said: dict[str, object]) -> None:
        pid = said["trainer_pid"]
        lives = isinstance(pid, int) and psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        if said["state"] == "training" and not lives:
            self._wrong_since = self._wrong_since or time.monotonic()
            if time.monotonic() - self._wrong_since > 1.0:
                self.lies.append(f"training, but no trainer lives: {said}")
        else:
            self._wrong_since = None


@pytest.mark.parametrize("victim", ["trainer", "daemon"])
def test_status_agrees_with_the_kernel_through_kills(make_daemon: MakeDaemon, victim: str) -> None:
    it = make_daemon(settings={"checkpoint": {"every_steps": 10}}).start()
    sampler = Sampler(it)
    sampler.start()
    it.drop("a.jsonl", rows(300))
    for step in (5, 8):
        it.wait_step(step)
        if victim == "daemon":
            it.kill()
            it.start()
        else:
            psutil.Process(it.status()["trainer_pid"]).kill()
            it.wait_status("another trainer", lambda s: s["trainer_pid"])
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1, 120)
    sampler.over.set()
    sampler.join()
    assert sampler.samples > 20
    assert sampler.lies == []
