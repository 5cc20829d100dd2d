"""``status``: the same through both clients, and set for people to read."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import msgspec
import pytest

from protocol.cli.status import lines, plain_options
from protocol.client import Client
from protocol.home import Home
from protocol.messages.system import GetStatus
from tests.protocol.cli.canned import STATUS
from tests.protocol.cli.conftest import Run

PLAIN: dict[str, Any] = msgspec.to_builtins(STATUS) | {"pid": 4242, "home": "/srv/home"}


def test_json_is_what_the_typed_client_decodes(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    done = run("status", "--json", "--home", home.root)
    with Client.connect(home.socket) as client:
        typed = client.call("ControlSocket", GetStatus())
    assert done.stdout == json.dumps(msgspec.to_builtins(typed), indent=2, ensure_ascii=False) + "\n"
    assert msgspec.json.decode(done.stdout, type=type(typed)) == typed


def test_json_has_every_key_that_scripts_rely_on(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    status = json.loads(run("status", "--json", "--home", home.root).stdout)
    assert set(status) >= {
        "state", "reason", "pid", "uptime_s", "job", "queue", "disk", "model", "warnings", "http", "restarts",
    }  # fmt: skip
    assert status["pid"] == daemon.pid
    assert status["job"]["file"] == "chät.jsonl"


def test_the_same_with_argparse_and_without(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    plain = run("status", "--home", home.root)
    parsed = run("--home", home.root, "status", "--")
    assert (plain.returncode, plain.stdout) == (parsed.returncode, parsed.stdout) != (0, "")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("status", (None, None, False)),
        ("status --json", (None, None, True)),
        ("--json --home x status --socket=y", ("x", "y", True)),
        ("status --home", None),
        ("status --home --json", None),
        ("status --help", None),
        ("status status", None),
        ("submit status", None),
        ("queue show status --json", None),
    ],
)
def test_only_a_plain_status_goes_without_argparse(words: str, wanted: tuple[Any, ...] | None) -> None:
    options = plain_options(words.split())
    assert (options and (options.home, options.socket, options.json)) == wanted


def test_a_person_reads() -> None:
    assert lines(PLAIN) == [
        "training  pid 4242, up 3 h 10 m, /srv/home",
        "  chät.jsonl  training, normal, attempt 2  01jaaaaaaaaaaaaaaaaaaaaaaa",
        "  ███████·····················  25%  step 30 of 120  250 of 1,000 samples",
        "  loss 2.4126   1,830 tokens/s   4 m 10 s to go",
        "  queue    2 high, 3 normal waiting, 1 in the inbox, 1 in processing, 1 failed, 12 done",
        "  model    version 3, step 1,204, 84 steps not yet published",
        "  disk     78.0 GiB free",
        "  restarts 2 restarts of actors; see: stokehold tree",
        "  ! InboxWatcher: something odd (look at it)",
    ]


def test_blocked_prints_the_command_that_ends_it() -> None:
    reason = "9 GB free (of 50), less than 10 GB (free space, or lower disk.refuse_below and: stokehold config reload)"
    drawn = lines(PLAIN | {"state": "blocked", "reason": reason, "job": None, "warnings": [], "restarts": 0})
    assert drawn[1] == "  9 GB free (of 50), less than 10 GB"
    assert drawn[2] == "  → free space, or lower disk.refuse_below and: stokehold config reload"


def test_an_idle_daemon_of_a_new_home() -> None:
    fresh = {
        "state": "idle", "job": None, "warnings": [], "restarts": 0, "http": {"host": "::1", "port": 9464},
        "queue": dict.fromkeys(PLAIN["queue"], 0), "model": {"version": None, "step": 0, "behind_steps": 0},
        "disk": {"free_bytes": 5 << 30, "level": "low"},
    }  # fmt: skip
    assert lines(PLAIN | fresh)[1:] == [
        "  queue    nothing waiting, 0 done",
        "  model    none published yet, step 0",
        "  disk     5.0 GiB free  low",
        "  http     http://[::1]:9464/metrics",
    ]


def test_a_file_name_cannot_command_the_terminal() -> None:
    job = PLAIN["job"] | {"file": "x\x1b[2J\n.jsonl"}
    assert all("\x1b" not in line and "\n" not in line for line in lines(PLAIN | {"job": job}))


def test_a_job_that_is_loading_has_no_numbers_yet() -> None:
    job = PLAIN["job"] | {"phase": "loading", "samples_total": 0, "samples_done": 0, "steps_total": 0}
    job |= {"loss": None, "tokens_per_s": None, "eta_s": None}
    drawn = lines(PLAIN | {"job": job})
    assert "loading" in drawn[1]
    assert "0%" in drawn[2]
    assert drawn[3].startswith("  queue")
