"""P10: state is derived, not remembered. ``status`` is held against the kernel, through everything that happens."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.system.conftest import MakeDaemon
from tests.system.harness import Daemon, rows, wait_for
from tests.system.kernel import trainer
from tests.system.sampler import Sampler, status_is_true


def lied_to(it: Daemon, **instead: Any) -> Sampler:
    """Return a sampler of this daemon, to which ``status`` says what it says, but for ``instead``."""

    def ask() -> dict[str, Any] | None:
        said = it.try_status()
        return said if said is None else said | instead

    return Sampler(lambda: it.pid, ask, it.home)


def kill_trainer(it: Daemon) -> None:
    killed = trainer(it.pid)
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    it.wait_status("another trainer", lambda s: s["trainer_pid"] not in (None, killed.pid))


def test_through_kills_skip_pause_and_resume(make_daemon: MakeDaemon) -> None:
    it = make_daemon(settings={"checkpoint": {"every_steps": 10}}).start()
    with status_is_true(it) as watched:
        it.drop("a.jsonl", rows(200))
        it.wait_step(5, "a.jsonl")
        it.kill()
        it.start()
        it.wait_step(12, "a.jsonl")
        kill_trainer(it)
        it.wait_step(15, "a.jsonl")
        it.drop("b.jsonl", rows(60, start=1000))
        it.wait_status("b waits", lambda s: s["queue"]["normal"] == 1)
        assert it.cli("skip").returncode == 0
        it.wait_step(3, "b.jsonl")
        assert it.cli("pause").returncode == 0
        assert it.status()["state"] == "paused"
        assert it.cli("resume").returncode == 0
        it.wait_status("both trained", lambda s: s["queue"]["done"] == 2)
        it.wait_idle()
    assert {"training", "paused", "blocked", "idle"} <= watched.said
    assert watched.samples > 100


def test_the_sampler_notices_a_lie(make_daemon: MakeDaemon) -> None:
    """The control: without it, the test above could pass for want of looking."""
    it = make_daemon().start()
    it.drop("a.jsonl", rows(3000))
    it.wait_step(1)
    for state in ("idle", "paused"):
        with lied_to(it, state=state) as watched:
            wait_for("the lie to be noticed", lambda seen=watched: seen.lies, 10)
        assert watched.lies[0].startswith(state)
    with lied_to(it, trainer_pid=it.pid) as watched:
        wait_for("the lie to be noticed", lambda: watched.lies, 10)
    assert watched.lies[0].startswith("another training process")
    os.kill(it.status()["trainer_pid"], signal.SIGSTOP)  # it is there, and does nothing
    with lied_to(it) as watched:
        wait_for("the lie to be noticed", lambda: watched.lies, 10)
    assert watched.lies[0].startswith("training")
