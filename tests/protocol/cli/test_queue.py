"""``queue``, ``history``, and the gate: what QueueManager is asked, and how its answers are shown."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from protocol.cli.failure import refused
from protocol.cli.place import Place
from protocol.client import Client, Failed
from protocol.home import Home
from protocol.messages.common import Request
from protocol.messages.consolidator import GetConsolidator
from protocol.messages.queue import GetHistory, GetJob, GetQueue, Resume
from protocol.messages.system import GetTree, ShowConfig
from tests.protocol.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("daemon")


def asked(home: Home) -> list[Any]:
    return [json.loads(line) for line in (home.root / "asked").read_text().splitlines()]


def test_list_is_an_aligned_table(run: Run, home: Home) -> None:
    out = run("queue", "list", "--home", home.root).stdout.splitlines()
    assert out[0].split() == [
        "id",
        "file",
        "line",
        "state",
        "attempts",
        "samples",
        "size",
        "submitted",
        "last",
        "error",
    ]
    column = out[0].index("state")
    assert [line[column:].split()[0] for line in out[1:]] == ["processing", "queued", "failed"]
    assert out[3].endswith("2026-03-04 05:06:07  loss is not finite")
    right = out[0].index("samples") + len("samples")
    assert all(line[right - 1] == "7" for line in out[1:])


def test_list_json_has_the_rows_that_scripts_rely_on(run: Run, home: Home) -> None:
    rows = json.loads(run("queue", "list", "--json", "--home", home.root).stdout)
    assert [row["state"] for row in rows] == ["processing", "queued", "failed"]
    assert rows[1] == {
        "id": "01jbbbbbbbbbbbbbbbbbbbbbbb", "file": "b.jsonl", "priority": "normal", "state": "queued", "attempts": 0,
        "last_error": None, "bytes": 2048, "sha256": "b" * 64, "samples": 7, "submitted_at": "2026-03-04T05:06:07Z",
    }  # fmt: skip


def test_show_prints_the_bad_lines_of_a_failed_job(run: Run, home: Home) -> None:
    report = {"id": "01jccccccccccccccccccccccc", "reason": "x", "lines": [4, 9]}
    (home.failed / "c.jsonl.error.json").write_text(json.dumps(report))
    out = run("queue", "show", "c.jsonl", "--home", home.root).stdout
    assert "loss is not finite" in out
    assert "lines 4, 9" in out
    assert json.loads(run("queue", "show", "c.jsonl", "--json", "--home", home.root).stdout)["state"] == "failed"


@pytest.mark.parametrize("action", ["show", "retry", "cancel"])
def test_an_unknown_job_is_a_failure_in_the_daemons_words(run: Run, home: Home, action: str) -> None:
    done = run("queue", action, "nonesuch", "--home", home.root)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no job is called nonesuch" in done.stderr


def test_retry_cancel_and_move_say_it_to_queue_manager(run: Run, home: Home) -> None:
    assert "normal line again" in run("queue", "retry", "c.jsonl", "--home", home.root).stderr
    assert run("queue", "cancel", "b.jsonl", "--home", home.root).returncode == 0
    moved = run("queue", "move", "b.jsonl", "--priority", "high", "--json", "--home", home.root)
    assert json.loads(moved.stdout)["priority"] == "high"
    assert asked(home) == [
        ["QueueManager", {"type": "retry", "job": "c.jsonl"}],
        ["QueueManager", {"type": "cancel", "job": "b.jsonl"}],
        ["QueueManager", {"type": "move", "job": "b.jsonl", "priority": "high"}],
    ]


def test_the_gate(run: Run, home: Home) -> None:
    paused = run("pause", "--home", home.root)
    assert (paused.returncode, paused.stdout) == (0, "")
    assert "stokehold resume" in paused.stderr
    assert run("pause", "--release", "--home", home.root).returncode == 0
    assert "training goes on" in run("resume", "--home", home.root).stderr
    assert json.loads(run("resume", "--json", "--home", home.root).stdout) == {"detail": "training goes on"}
    assert [message for _, message in asked(home)] == [
        {"type": "pause", "release": False}, {"type": "pause", "release": True}, {"type": "resume"}, {"type": "resume"},
    ]  # fmt: skip


def test_a_refusal_is_a_failure(run: Run, home: Home) -> None:
    done = run("skip", "--home", home.root)
    assert done.returncode == 1
    assert done.stderr == "stokehold: no file is being trained\n"


def test_history(run: Run, home: Home) -> None:
    rows = json.loads(run("history", "--json", "--home", home.root).stdout)
    assert [row["file"] for row in rows] == ["b.jsonl", "a.jsonl"]
    assert set(rows[0]) == {
        "id", "file", "sha256", "outcome", "samples", "held_out", "refused", "tokens", "steps", "first_loss",
        "last_loss", "version", "started_at", "finished_at", "interruptions",
    }  # fmt: skip
    out = run("history", "--limit", "1", "--home", home.root).stdout.splitlines()
    assert len(out) == 2
    assert "5.250 → 2.500" in out[1]
    assert (
        json.loads(run("history", "--outcome", "failed", "--json", "--home", home.root).stdout)[0]["file"] == "a.jsonl"
    )


def test_tree_is_drawn(run: Run, home: Home) -> None:
    out = run("tree", "--home", home.root).stdout.splitlines()
    assert [line[: line.index("  ", 8)].rstrip() for line in out] == [
        "root", "├─ core", "│  ├─ QueueManager", "│  └─ ControlSocket", "└─ training", "   └─ TrainerActor",
    ]  # fmt: skip
    assert "mailbox 4" in out[2]
    assert "1 restart" in out[3] and "last exit: Crash(ValueError)" in out[3]
    assert "cooling down" in out[5] and "pid 4242" in out[5] and "last exit: Killed(9)" in out[5]


def test_tree_json_is_nested(run: Run, home: Home) -> None:
    tree = json.loads(run("tree", "--json", "--home", home.root).stdout)
    assert set(tree) == {"id", "kind", "status", "restarts", "last_exit", "uptime_s", "mailbox", "pid", "children"}
    assert [child["id"] for child in tree["children"]] == ["core", "training"]


def test_consolidate(run: Run, home: Home) -> None:
    shown = run("consolidate", "--home", home.root).stdout
    assert "next: 2026-03-04 05:06:07" in shown and "promoted: merged" in shown
    assert json.loads(run("consolidate", "--json", "--home", home.root).stdout)["last_outcome"] == "promoted"
    now = run("consolidate", "--now", "--json", "--home", home.root)
    assert now.returncode == 0
    result = json.loads(now.stdout)
    assert (result["outcome"], result["reason"]) == ("refused", "nothing was trained since the last one")
    assert "refused: nothing was trained" in run("consolidate", "--now", "--home", home.root).stdout


@pytest.mark.parametrize(
    ("words", "to", "message"),
    [
        (["tree"], "ControlSocket", GetTree()),
        (["config", "show"], "ControlSocket", ShowConfig()),
        (["queue", "list"], "QueueManager", GetQueue()),
        (["queue", "show", "a.jsonl"], "QueueManager", GetJob(job="a.jsonl")),
        (["history"], "QueueManager", GetHistory()),
        (["consolidate"], "Consolidator", GetConsolidator()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_read_without_types_is_what_the_typed_client_decodes(
    run: Run, home: Home, words: list[str], to: str, message: Request[Any]
) -> None:
    with Client.connect(home.socket) as client:
        typed = client.call(to, message)
    assert json.loads(run(*words, "--json", "--home", home.root).stdout) == msgspec.to_builtins(typed)


def test_an_actor_that_is_not_there(home: Home) -> None:
    """Failures of the wire get a hint of what to do next."""
    with Client.connect(home.socket) as client, pytest.raises(Failed) as failed:
        client.call("Nobody", Resume())
    told = refused(failed.value, Place(str(home.root), str(home.socket)))
    assert told.code == 1
    assert "stokehold tree" in told.next
