"""The README is true: its commands are run in order as they stand, its programs too, and its numbers are the defaults.

``make run`` is run by ``tests/system/test_make_run.py``; ``make test`` is what runs this.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from protocol.cli.commands import MODULES
from protocol.config import GIB, Config
from protocol.home import Home
from tests.system.harness import SETTINGS, alive, rows, toml, wait_for

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in BLOCK.finditer(README)]


@dataclass
class Reader:
    """Somebody who types what the README says, in a home folder of their own."""

    folder: Path
    environment: dict[str, str]
    daemon: subprocess.Popen[str] | None = None
    said: dict[str, str] = field(default_factory=dict)
    """What each command and program wrote to stdout."""

    @property
    def home(self) -> Home:
        return Home(self.folder / "teacher")

    def type(self, line: str) -> None:
        command = line.partition("#")[0].strip()
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = value.replace("~", str(self.folder))
        elif command.startswith("stokehold run "):
            self._start(command)
        elif command.endswith(" -f"):
            self._follow(command)
        elif command == "stokehold skip":
            self._give_it_a_long_file()
            self._run(command)
        else:
            self._run(command)
        if command.startswith("stokehold init "):
            # The harness's small steps, so that it takes seconds; no floor under a disk that may be small; any port.
            self.home.settings.write_text(toml(SETTINGS | {"http": {"port": 0}}))

    def program(self, text: str) -> None:
        self.said[text] = self._done([sys.executable, "-c", text])

    def _run(self, command: str) -> None:
        self.said[command] = self._done(["bash", "-c", command])

    def _done(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _popen(self, command: str, output: Path) -> subprocess.Popen[str]:
        with output.open("w") as file:
            return subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=ROOT,
                env=self.environment,
                stdout=file,
                stderr=file,
                text=True,
                start_new_session=True,
            )

    def _start(self, command: str) -> None:
        output = self.folder / "daemon.out"
        self.daemon = daemon = self._popen(command, output)

        def answers() -> bool:
            assert daemon.poll() is None, output.read_text()
            return self.home.socket.exists()

        wait_for("the daemon's socket", answers)

    def _follow(self, command: str) -> None:
        """It goes on until Ctrl-C: which comes as soon as it has said something."""
        output = self.folder / "follow.out"
        process = self._popen(command, output)
        try:
            wait_for(f"the first line of {command}", output.read_text)
            assert process.poll() is None, f"{command} did not go on:\n{output.read_text()}"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            finally:
                process.kill()
                process.wait()

    def _give_it_a_long_file(self) -> None:
        aside = self.folder / "long.jsonl"
        aside.write_text(rows(5000))
        aside.rename(self.home.inbox / aside.name)
        wait_for("the long file in training", lambda: "long.jsonl" in self._done(["stokehold", "status"]))


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    """A reader, whose daemon is surely gone afterwards."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    it = Reader(folder, {**os.environ, "HOME": str(folder), "PATH": path})
    try:
        yield it
    finally:
        if it.daemon is not None and it.daemon.poll() is None:
            family = psutil.Process(it.daemon.pid).children(recursive=True)
            it.daemon.kill()
            it.daemon.wait()
            psutil.wait_procs(family, timeout=5)


@pytest.mark.timeout(300)
def test_everything_in_it_works_as_it_stands(tmp_path: Path) -> None:
    with reader(tmp_path) as it:
        for language, text in BLOCKS:
            if language == "sh":
                for line in text.splitlines():
                    it.type(line)
            elif language == "python":
                it.program(text)

        assert it.daemon is not None
        assert it.daemon.wait(10) == 0, "stop ends the daemon gently"
        assert not alive(psutil.Process().children(recursive=True))
        assert "2-chat.jsonl" in it.said["stokehold history"]
        assert "current" in it.said["stokehold models list"]
        assert "«" in it.said["stokehold preview configs/sample/3-trivia.jsonl"]
        assert "stokehold_state" in it.said["stokehold metrics"]
        (socket,) = [said for text, said in it.said.items() if "AF_UNIX" in text]
        assert json.loads(socket.splitlines()[-1])["body"]["state"] in {"training", "blocked", "idle"}


def test_every_block_is_run() -> None:
    """But the first, which is make's."""
    (other,) = [text for language, text in BLOCKS if language not in {"sh", "python"}]
    assert [line.partition("#")[0].strip() for line in other.splitlines()] == ["make run", "make test"]
    assert {language for language, _ in BLOCKS} == {"", "sh", "python"}


def test_the_embedding_example_is_the_file() -> None:
    example = (ROOT / "docs" / "examples" / "embed_library.py").read_text(encoding="utf-8")
    (shown,) = [text for language, text in BLOCKS if language == "python" and "open_tree" in text]
    assert example.endswith(shown)


def test_it_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"(?:^|`|/)stokehold ([a-z]+)", README, re.MULTILINE))
    assert named == set(MODULES)


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:configs|docs|tests)/[\w./-]+)`", README))
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_its_numbers_are_the_defaults() -> None:
    config = Config()
    assert config.disk.refuse_below == 10 * GIB  # "under 10 GiB free"
    assert config.queue.max_attempts == 3  # "after 3 attempts"
    assert (config.http.host, config.http.port) == ("127.0.0.1", 9464)
    assert (config.training.packing, config.training.deterministic) == (False, True)
    assert config.training.processes == 1  # "One training process"
