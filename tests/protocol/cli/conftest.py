"""Real command-line processes, against a real server with canned answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from protocol.home import Home

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-P", "-m", "protocol.cli.main"]


class Run(Protocol):
    def __call__(
        self,
        *words: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        command: list[str] = COMMAND,
    ) -> subprocess.CompletedProcess[str]: ...


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change the command line's ways."""
    kept = {k: v for k, v in os.environ.items() if k not in ("STOKEHOLD_HOME", "NO_COLOR")}
    return kept | {"PYTHONPATH": str(ROOT), "TZ": "UTC"} | (extra or {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command to its end, in an empty folder."""
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()

    def run(
        *words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None, command: list[str] = COMMAND
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, words)],
            capture_output=True, text=True, timeout=30, check=False, env=environment(env), cwd=cwd or nowhere,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with its folders and nothing in them."""
    home = Home(tmp_path / "home")
    for folder in home.folders:
        folder.mkdir()
    home.run.chmod(0o700)
    return home


@pytest.fixture
def daemon(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """The canned server at that home."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.protocol.cli.canned", str(home.root)], env=environment()
    )
    until(home.socket.is_socket, "the server listens", process)
    yield process
    process.kill()
    process.wait()


def until(condition: Callable[[], object], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert process is None or process.poll() is None, f"the process ended with {process.returncode} before {what}"
        assert time.monotonic() < deadline, f"not so within 20 s: {what}"
        time.sleep(0.01)
