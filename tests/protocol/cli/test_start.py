"""What a command loads before it answers: the blink of an eye is spent on imports."""

from __future__ import annotations

import subprocess

import pytest

from protocol.home import Home
from tests.protocol.cli.conftest import COMMAND, Run

HEAVY = {
    "torch",
    "transformers",
    "anyio",
    "trio",
    "asyncio",
    "rich",
    "structlog",
    "prometheus_client",
    "multiprocessing",
}
FOR_STATUS = HEAVY | {"socket", "msgspec", "argparse", "pathlib", "dataclasses", "inspect", "datetime", "subprocess"}


def imported(run: Run, *words: object) -> set[str]:
    done = run(*map(str, words), command=[COMMAND[0], "-X", "importtime", *COMMAND[1:]])
    assert done.returncode == 0, done.stderr
    return {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


@pytest.mark.parametrize("words", [["status"], ["status", "--json"]], ids=" ".join)
def test_status_takes_the_standard_library_path(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], words: list[str]
) -> None:
    loaded = imported(run, *words, "--home", home.root)
    assert {"json", "_socket"} <= loaded
    assert not loaded & FOR_STATUS


@pytest.mark.parametrize(
    "words",
    [
        ["tree"],
        ["queue", "list"],
        ["history", "--json"],
        ["config", "show"],
        ["consolidate"],
        ["queue", "show", "a.jsonl"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_other_reading_commands_load_nothing_heavy(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], words: list[str]
) -> None:
    assert not imported(run, *words, "--home", home.root) & HEAVY


@pytest.mark.parametrize(
    "words", [["tree"], ["queue", "list"], ["history"], ["config", "show"], ["consolidate"], ["logs"]], ids=" ".join
)
def test_what_prints_plain_data_does_without_the_types(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], words: list[str]
) -> None:
    """Importing msgspec alone takes as long as all the rest."""
    (home.logs / "stokehold.log").touch()
    assert "msgspec" not in imported(run, *words, "--home", home.root)


@pytest.mark.parametrize(
    "words", [["models", "list"], ["checkpoints", "list"], ["checkpoints", "verify"], ["config", "check"]], ids=" ".join
)
def test_commands_without_a_daemon_load_nothing_heavy(run: Run, home: Home, words: list[str]) -> None:
    home.settings.write_text("")
    assert not imported(run, *words, "--home", home.root) & HEAVY
