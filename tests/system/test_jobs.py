"""P3, P7: attempts, skips, refusals; each sample as often as asked."""

from __future__ import annotations

import json

from tests.system.conftest import MakeDaemon
from tests.system.harness import rows
from tests.system.killing import ROWS, Controls


def test_skip_a_file_half_way_train_another_come_back(make_daemon: MakeDaemon, undisturbed: Controls) -> None:
    _, (alone,) = undisturbed["full"]
    it = make_daemon().start()
    it.drop("long.jsonl", rows(ROWS))
    it.wait_step(5, "long.jsonl")
    it.drop("short.jsonl", rows(20, start=5000))
    it.wait_status("short waits", lambda s: s["queue"]["normal"] == 1)
    assert it.cli("skip").returncode == 0
    assert it.files(it.home.line("low")) == ["long.jsonl"]
    (half,) = it.ledger().cursors
    assert 5 <= half.stats.steps < alone["stats"]["steps"], "its progress was kept"
    it.wait_status("both trained", lambda s: s["queue"]["done"] == 2, 120)
    it.wait_idle()
    entries = {entry.file: entry for entry in it.ledger().committed}
    assert [entry.file for entry in it.ledger().committed] == ["short.jsonl", "long.jsonl"]
    assert {name: entry.stats.samples for name, entry in entries.items()} == {"long.jsonl": ROWS, "short.jsonl": 20}
    assert entries["long.jsonl"].stats.steps == alone["stats"]["steps"], "as many as without the skip"
    assert entries["long.jsonl"].stats.tokens == alone["stats"]["tokens"]
    assert it.ledger().cursors == ()
    steps = sum(entry.stats.steps for entry in entries.values())
    assert it.status()["model"]["step"] == steps, "no optimizer step was made twice, none left out"
    assert it.optimizer_steps() == {steps}
    assert {row["file"]: row["samples"] for row in it.json("history")} == {"long.jsonl": ROWS, "short.jsonl": 20}


def test_bad_lines_send_the_file_to_failed_at_once_or_are_skipped(make_daemon: MakeDaemon) -> None:
    it = make_daemon().start()
    it.drop("bad.jsonl", rows(2) + '{"txt": "no"}\n' + rows(1, start=9) + "not json\n")
    it.wait_status("refused", lambda s: s["queue"]["failed"] == 1)
    error = json.loads((it.home.failed / "bad.jsonl.error.json").read_text())
    assert set(error) == {"id", "file", "reason", "attempts", "lines", "traceback"}
    assert error["lines"] == [3, 5]
    assert error["file"] == "bad.jsonl"
    assert it.files(it.home.failed) == ["bad.jsonl"]
    assert it.json("queue", "list")[0]["state"] == "failed"

    it.configure({"data": {"on_bad_line": "skip"}})
    assert it.cli("config", "reload").returncode == 0
    it.drop("mixed.jsonl", rows(2) + '{"txt": "no"}\n' + rows(3, start=9))
    it.wait_status("trained", lambda s: s["queue"]["done"] == 1)
    row = it.json("history")[0]
    assert (row["outcome"], row["samples"], row["refused"]) == ("trained", 5, 1)


def test_three_formats_priorities_and_wait(make_daemon: MakeDaemon) -> None:
    it = make_daemon().start()
    assert it.cli("pause").returncode == 0
    sources = it.home.root.parent / "sources"
    sources.mkdir()
    texts = {
        "text.jsonl": rows(3),
        "pairs.jsonl": json.dumps({"prompt": "Who feeds the boiler?", "completion": " The stoker."}) + "\n",
        "chat.jsonl": json.dumps(
            {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The stoker."}]}
        )
        + "\n",
    }
    for name, text in texts.items():
        (sources / name).write_text(text)
    for name, priority in (("text.jsonl", "low"), ("pairs.jsonl", "normal"), ("chat.jsonl", "high")):
        done = it.cli("submit", str(sources / name), "--priority", priority)
        assert done.returncode == 0, done.stderr
    assert [row["file"] for row in it.json("queue", "list")] == ["chat.jsonl", "pairs.jsonl", "text.jsonl"]
    assert it.cli("resume").returncode == 0
    waited = it.cli("submit", str(sources / "text.jsonl"), "--wait")
    assert waited.returncode == 0, waited.stderr
    it.wait_idle()
    order = [row["file"] for row in reversed(it.json("history"))]
    assert order[:2] == ["chat.jsonl", "pairs.jsonl"]
    assert sorted(order[2:]) == ["text.jsonl", "text.jsonl"]


def test_submit_refuses_what_is_not_there(make_daemon: MakeDaemon) -> None:
    it = make_daemon().start()
    missing = it.cli("submit", "/no/such/file.jsonl")
    assert missing.returncode in (1, 2)
    assert "/no/such/file.jsonl" in missing.stderr
    assert missing.stdout == ""


def test_commands_without_a_daemon_exit_3(make_daemon: MakeDaemon) -> None:
    it = make_daemon()
    for command in (["status"], ["tree"], ["queue", "list"], ["pause"], ["history"]):
        done = it.cli(*command)
        assert done.returncode == 3, command
        assert done.stdout == ""
