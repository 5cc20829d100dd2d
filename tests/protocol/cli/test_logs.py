"""``logs`` and ``events``: what was, and what happens."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from protocol.home import Home
from tests.protocol.cli.conftest import COMMAND, Run, environment, until


def record(event: str, **more: Any) -> str:
    return json.dumps({"ts": "2026-03-04T05:06:07Z", "level": "info", "event": event, "actor": "QueueManager"} | more)


@pytest.fixture
def log(home: Home) -> Home:
    """A home with a log that was rotated."""
    (home.logs / "stokehold.log.10").write_text("".join(record(f"old {n}") + "\n" for n in range(15)))
    (home.logs / "stokehold.log.2").write_text("".join(record(f"old {n}") + "\n" for n in range(15, 20)))
    (home.logs / "other.log").write_text("not ours\n")
    (home.logs / "stokehold.log").write_text(record("new", topic="queue", job="01j", text="two words") + "\n")
    return home


@contextmanager
def following(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_old_files_first(run: Run, log: Home) -> None:
    out = run("logs", "--home", log.root).stdout.splitlines()
    assert len(out) == 21
    assert out[0] == "2026-03-04 05:06:07.000  info     QueueManager: old 0"
    assert out[20] == '2026-03-04 05:06:07.000  info     QueueManager: new  job=01j  text="two words"'


def test_json_is_the_lines_as_they_stand(run: Run, log: Home) -> None:
    out = run("logs", "--json", "-n", "2", "--home", log.root).stdout.splitlines()
    assert [json.loads(text)["event"] for text in out] == ["old 19", "new"]


def test_a_traceback_stands_below_its_line_and_no_line_commands_the_terminal(run: Run, log: Home) -> None:
    torn = (
        record("crashed", level="error", traceback="Traceback:\n  File x\nValueError: \x1b[2J") + "\nnot json \x1b[2J\n"
    )
    (log.logs / "stokehold.log").write_text(torn)
    out = run("logs", "-n", "2", "--home", log.root).stdout
    assert "\x1b" not in out
    assert out.splitlines()[1:4] == ["    Traceback:", "      File x", "    ValueError: \\x1b[2J"]
    assert out.splitlines()[4] == "not json \\x1b[2J"


def test_no_log_at_all(run: Run, home: Home) -> None:
    done = run("logs", "--home", home.root)
    assert done.returncode == 1
    assert "stokehold run" in done.stderr


def test_follow_goes_over_a_rotation(log: Home) -> None:
    current = log.logs / "stokehold.log"
    with following("logs", "-f", "-n", "1", "--json", "--home", str(log.root)) as process:
        assert json.loads(line(process))["event"] == "new"
        with current.open("a") as file:
            file.write(record("half")[:10])
            file.flush()
            file.write(record("half")[10:] + "\n")
        assert json.loads(line(process))["event"] == "half"
        current.rename(log.logs / "stokehold.log.1")
        current.write_text(record("after the rotation") + "\n")
        assert json.loads(line(process))["event"] == "after the rotation"


def test_follow_waits_for_a_log_that_is_not_there_yet(home: Home) -> None:
    with following("logs", "-f", "--home", str(home.root)) as process:
        until(lambda: b"logs" in _words(process.pid), "it runs", process)
        (home.logs / "stokehold.log").write_text(record("first") + "\n")
        assert line(process).endswith("first")


def test_events_of_late(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    """All topics that there are, but the chatty one, and then it ends."""
    out = run("events", "--home", home.root).stdout.splitlines()
    assert out == [
        '05:06:07.000  crashes    number 0  actor=TrainerActor  \\x1b[31m="x y"',
        '05:06:07.000  state      number 1  actor=TrainerActor  \\x1b[31m="x y"',
    ]
    (shown,) = run("events", "--json", "--topic", "steps", "--home", home.root).stdout.splitlines()
    assert (json.loads(shown)["topic"], json.loads(shown)["at"]) == ("steps", "2026-03-04T05:06:07Z")


def test_events(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    with following("events", "-f", "--home", str(home.root)) as process:
        assert line(process) == '05:06:07.000  crashes    number 0  actor=TrainerActor  \\x1b[31m="x y"'
    named = ("--topic", "crashes", "--topic", "logs")
    with following("events", "-f", "--json", *named, "--home", str(home.root)) as process:
        told = [json.loads(line(process)) for _ in range(2)]
        assert [event["topic"] for event in told] == ["crashes", "logs"]
        assert told[0]["data"]["event"] == "number 0"
        assert told[0]["at"] == "2026-03-04T05:06:07Z"


def test_events_that_follow_outlive_the_daemon(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    with following("events", "-f", "--topic", "state", "--json", "--home", str(home.root)) as process:
        line(process)
        daemon.kill()
        daemon.wait()
        second = subprocess.Popen(
            [COMMAND[0], "-P", "-m", "tests.protocol.cli.canned", str(home.root)], env=environment()
        )
        try:
            assert json.loads(line(process))["data"]["event"] == "number 0"
        finally:
            second.kill()
            second.wait()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


def _words(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
