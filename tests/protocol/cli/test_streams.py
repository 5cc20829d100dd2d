"""Whatever has become of its streams, and whatever words it is given, a command says it with its exit code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from protocol.home import Home
from tests.protocol.cli.conftest import COMMAND, Run, environment


def _in_shell(words: str, home: Home) -> subprocess.CompletedProcess[str]:
    script = f"{' '.join(COMMAND)} --home '{home.root}' {words}"
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=30, check=False, env=environment()
    )


@pytest.mark.parametrize("words", ["status", "status --json", "queue list", "queue list --json", "tree", "--help"])
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_nobody_need_listen(home: Home, daemon: subprocess.Popen[bytes], words: str, closed: str) -> None:
    done = _in_shell(f"{words} {closed}", home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("deaf", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("words", "code"), [("nonsense", 2), ("queue", 2), ("status", 3), ("init /proc/x", 1)])
def test_the_code_tells_what_nobody_hears_and_no_message_becomes_data(
    home: Home, words: str, code: int, deaf: str
) -> None:
    done = _in_shell(f"{words} {deaf}", home)
    assert (done.returncode, done.stdout) == (code, "")


def test_what_was_done_is_done_though_nobody_hears_it(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    done = _in_shell("pause 2>&-", home)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("words", [["show"], ["cancel"], ["retry"], ["move", "--priority", "low"]])
def test_a_word_that_is_not_utf8_is_misuse(home: Home, daemon: subprocess.Popen[bytes], words: list[str]) -> None:
    command: list[str | bytes | Path] = [*COMMAND, "--home", home.root, "queue", *words, b"\xff.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["logs", "-n"], ["history", "--limit"], ["preview", "x", "--rows"]])
def test_a_number_beyond_all_measure_is_misuse(run: Run, home: Home, words: list[str]) -> None:
    (home.logs / "stokehold.log").write_text("{}\n")
    done = run("--home", home.root, *words, "9" * 30)
    assert done.returncode == 2
    assert "is more than" in done.stderr
