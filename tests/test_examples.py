"""The examples in ``docs/examples`` do what they say, run as their readers would run them."""

from __future__ import annotations

import asyncio
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
SAMPLE = ROOT / "configs" / "sample" / "2-chat.jsonl"


def library() -> Any:
    return runpy.run_path(str(EXAMPLES / "embed_library.py"))["main"]


@pytest.mark.anyio
async def test_the_library_in_an_anyio_program() -> None:
    assert await library()() == [10, 2]


def test_the_library_in_a_plain_asyncio_program() -> None:
    assert asyncio.run(library()()) == [10, 2]


def test_the_library_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "embed_library.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[10, 2]\n"), done.stderr
    assert "ZeroDivisionError" in done.stderr, "the crash is told"


def test_the_daemon_in_a_plain_asyncio_program(tmp_path: Path) -> None:
    """It trains the file, the app's own server answers meanwhile, and nothing is left behind."""
    file = tmp_path / SAMPLE.name
    file.write_text("".join(SAMPLE.read_text().splitlines(keepends=True)[:40]))
    with (
        (tmp_path / "stderr").open("w+") as stderr,
        subprocess.Popen(
            [sys.executable, EXAMPLES / "embed_daemon.py", tmp_path / "home", file],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as app,
    ):
        assert app.stdout is not None
        said = []
        port = 0
        for line in app.stdout:
            said.append(line)
            if line.startswith("my own server: port "):
                port = int(line.split()[-1])
            elif line.startswith("step 1 of "):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    assert connection.makefile().readline() == "hello\n"
        code = app.wait(30)
        stderr.seek(0)
        complaints = stderr.read()
    assert code == 0, complaints
    assert said[-1].startswith("2-chat.jsonl: trained, 40 samples, loss "), said
    assert any(line.startswith("step 1 of ") for line in said), said
    assert complaints == ""
