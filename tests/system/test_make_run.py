"""What ``make run`` starts, on a terminal: it is stopped by Ctrl-C, goes on to the end, and then has nothing to do.

It runs in a copy of the project, with less to learn: the files, and the home that it makes, are the copy's.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.harness import ROOT, Daemon, alive

DEMO = [sys.executable, "-P", "-m", "actors.tools.demo"]
ROWS = (60, 20, 20)
"""That are left of the sample files. The first must last until it is interrupted."""

# What a terminal does for the programs in it: theirs is the session, and its Ctrl-C goes to all of the group.
IN_A_TERMINAL = """\
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A program on a terminal of 80 columns, and what it has written there."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(cwd), "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=environment,
        )
        os.close(slave)
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the last of its programs has ended
            while data := os.read(self._master, 65536):
                self._written += data

    @property
    def text(self) -> str:
        """What was written, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._written.decode(errors="replace")).replace("\r", "")

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def wait(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds:g} s:\n{self.text[-3000:]}") from None

    def close(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._master)


@contextlib.contextmanager
def terminal(command: list[str], cwd: Path) -> Iterator[Terminal]:
    it = Terminal(command, cwd)
    try:
        yield it
    finally:
        it.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project that has less to learn."""
    for name in ("actors", "protocol", "supervisor", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, rows in zip(sorted((tmp_path / "configs" / "sample").glob("*.jsonl")), ROWS, strict=True):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:rows]))
    settings = tmp_path / "configs" / "quickstart.toml"
    text = settings.read_text()
    for key, value in (("epochs", "1"), ("batch_tokens", "128"), ("settle", '"0s"')):
        text, count = re.subn(rf"^{key} = \S+", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    settings.write_text(text)
    return tmp_path


@pytest.mark.timeout(240)
def test_ctrl_c_then_on_to_the_end_then_nothing_to_do(project: Path) -> None:
    daemon = Daemon(project / "demo-home")  # to look into the home; the demo starts its own
    daemon.stderr.touch()
    home = daemon.home

    with terminal(DEMO, project) as first:
        try:
            pid = daemon.wait_step(5, "1-coding.jsonl")["pid"]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{first.text[-3000:]}") from None
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert os.getsid(pid) != os.getsid(first.process.pid), "a Ctrl-C would reach the daemon itself"
        first.press_ctrl_c()
        assert first.wait(60) == 0
        assert "goes on from there" in first.text
        assert re.search(r"1-coding.jsonl .* loss \d", first.text), "no live progress was drawn"
    assert not alive(family)
    assert [cursor.file for cursor in daemon.ledger().cursors] == ["1-coding.jsonl"], "its progress was kept"

    with terminal(DEMO, project) as second:
        assert second.wait(120) == 0, second.text[-3000:]
        assert "Going on where the last run stopped" in second.text
        assert "demo-home/models/current" in second.text
        for name in ("2-chat.jsonl", "3-trivia.jsonl"):
            shown = re.findall(rf"{name} .* (loss \d\S* → \S+)", second.text)[-1]
            assert re.search(rf"{name}: trained, .* {re.escape(shown)}\n", second.text), "the bar and the report differ"
        assert "Sputnik" not in second.text  # 20 rows, read once: it has learned nothing, but it has written
        assert "first artificial Earth satellite" in second.text
    assert not home.socket.exists()
    assert (home.current / "model.safetensors").exists()
    trained = {entry.file: (entry.stats.samples, entry.rows) for entry in daemon.ledger().committed}
    lines = {path.name: len(path.read_text().splitlines()) for path in (project / "configs/sample").glob("*.jsonl")}
    assert trained == {name: (count, count) for name, count in lines.items()}, "each row once, in spite of the Ctrl-C"

    before = daemon.head()
    third = subprocess.run(
        DEMO, cwd=project, env={**os.environ, "PYTHONPATH": str(project)}, capture_output=True, text=True, check=False
    )
    assert third.returncode == 0, third.stdout + third.stderr
    assert "nothing is trained twice" in third.stdout
    assert "\x1b" not in third.stdout, "colours, and no terminal"
    assert daemon.head() == before


def test_make_run_is_that_program() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].endswith("-P -m actors.tools.demo")
