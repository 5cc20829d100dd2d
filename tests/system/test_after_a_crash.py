"""P10: after a crash, requests to stop do not haunt the next run, and a pause that the user asked for is kept."""

from __future__ import annotations

from tests.system.conftest import MakeDaemon
from tests.system.harness import rows, wait_for
from tests.system.sampler import status_is_true


def test_pause_survives_a_crash_and_requests_to_stop_do_not(make_daemon: MakeDaemon) -> None:
    it = make_daemon().start()
    it.drop("a.jsonl", rows(200))
    it.wait_step(3, "a.jsonl")
    it.drop("b.jsonl", rows(10, start=1000))
    it.wait_status("b waits", lambda s: s["queue"]["normal"] == 1)
    assert it.cli("pause").returncode == 0
    assert it.status()["state"] == "paused"
    saved = it.ledger().cursors[0].consumed
    assert saved > 0, "pause ends with a checkpoint"
    with status_is_true(it):
        it.kill()
        it.home.stop_file.touch()
        it.start()
        now = it.wait_status("paused still", lambda s: s["state"] == "paused")
        assert "resume" in now["reason"]
        wait_for("the stale stop request to go", lambda: not it.home.stop_file.exists(), 10)
        it.wait_status("a training process", lambda s: s["trainer_pid"])
        now = it.status()
        assert (now["state"], now["job"], now["queue"]["normal"]) == ("paused", None, 2), "nothing trains"
        assert it.cli("resume").returncode == 0
        it.wait_status("going on", lambda s: s["job"] and s["job"]["samples_done"] > saved)
        it.ask("SignalHandler", {"type": "stop", "mode": "after_file"})
        it.kill()
        it.start()
        it.wait_status("both trained", lambda s: s["queue"]["done"] == 2)
    assert [entry.stats.samples for entry in it.ledger().committed] == [200, 10]
    assert it.process is not None
    assert it.process.poll() is None
