"""``docs/library.md`` is true: its files are written, its commands run, in order, and what it shows is what comes out.

Its programs are run on asyncio as they stand, and on trio with the one line changed that starts the event loop.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.system.harness import wait_for

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in BLOCK.finditer(GUIDE)]
FILES = {text.partition("\n")[0].removeprefix("# "): text for language, text in BLOCKS if language == "python"}
LINES = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
PROGRAMS = [
    (text.strip(), BLOCKS[number + 1][1])
    for number, (language, text) in enumerate(BLOCKS)
    if language == "sh" and number + 1 < len(BLOCKS) and BLOCKS[number + 1][0] == "text"
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader has written down all files of the guide."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def environment(*more: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, [*more, ROOT]))
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": path, "PATH": programs, "NO_COLOR": "1"}


def run(line: str, folder: Path) -> str:
    done = subprocess.run(
        shlex.split(line), cwd=folder, env=environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def on_trio(folder: Path) -> None:
    for path in folder.glob("*.py"):
        text = path.read_text().replace("import asyncio\n", "import trio\n")
        path.write_text(text.replace("asyncio.run(main())", "trio.run(main)"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("line", "shown"), PROGRAMS, ids=[line for line, _ in PROGRAMS])
def test_a_program_prints_what_is_shown(line: str, shown: str, backend: str, folder: Path) -> None:
    if backend == "trio":
        on_trio(folder)
    assert run(line, folder) == shown


def test_its_programs_are_typed(folder: Path) -> None:
    """The guide says that a type checker knows what a call is answered with."""
    assert "no issues found" in run("python -m mypy --strict --cache-dir=cache .", folder)


def test_its_tests_pass(folder: Path) -> None:
    (line,) = [line for line in LINES if "pytest" in line]
    assert re.search(r"^14 passed", run(line, folder), re.MULTILINE), "five tests, one of them with three seeds, twice"


@pytest.fixture(params=["asyncio", "trio"])
def service(request: pytest.FixtureRequest, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The tree as a program, started by the guide's own command."""
    if request.param == "trio":
        on_trio(folder)
    make, start = [line for line in LINES if line.startswith(("mkdir", "PYTHONPATH"))]
    run(make, folder)
    command = start.removeprefix("PYTHONPATH=. ").removesuffix(" &").replace("trio", request.param)
    process = subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True
    )

    def answers() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return (folder / "run" / "control.sock").exists()

    try:
        wait_for("the control socket", answers)
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def display(folder: Path) -> Iterator[None]:
    """The other program, from when it has joined the tree."""
    process = subprocess.Popen([sys.executable, "display.py"], cwd=folder, env=environment())
    try:
        state = "stokehold --socket run/control.sock actor state display"
        wait_for("the display joins", lambda: "display  running" in run(state, folder))
        yield
    finally:
        process.kill()
        process.wait()


def test_each_command_works_on_the_running_tree(service: subprocess.Popen[str], folder: Path) -> None:
    with ExitStack() as stack:
        _each_command(service, folder, stack)


def _each_command(service: subprocess.Popen[str], folder: Path, stack: ExitStack) -> None:
    said = {}
    for line in LINES:
        if line == "python display.py &":
            stack.enter_context(display(folder))
        elif line.startswith("stokehold"):
            said[line.removeprefix("stokehold --socket run/control.sock ")] = run(line, folder)
    assert "forecast" in said["tree"] and "pid" in said["tree"]
    assert [json.loads(text) for command, text in said.items() if '"mean"' in command] == [17.5]
    assert "heater  running  incarnation 1" in said["actor state heater"]
    assert "climate  running  incarnation 2" in said["actor restart climate"]
    assert "restarting" in said["events"]
    assert [json.loads(text) for command, text in said.items() if "display" in command] == ["18.0 degrees"]
    where = re.search(r"listening +(\S+)", said["actor state MetricsExporter"])
    assert where is not None
    with urllib.request.urlopen(f"http://{where[1]}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    assert 'greenhouse_actor_exits_total{actor="climate",reason="shutdown"} 1.0' in page
    service.send_signal(signal.SIGTERM)
    assert service.wait(30) == 0, service.communicate()[1]


def test_every_block_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh", "text"}
    assert all(re.fullmatch(r"\w+\.py", name) for name in FILES)
    assert len(FILES) == sum(language == "python" for language, _ in BLOCKS), "no file is shown twice"
    shown = [line for line, _ in PROGRAMS]
    ours = ("stokehold", "mkdir", "PYTHONPATH", "python display.py &")
    rest = [line for line in LINES if line not in shown and not line.startswith(ours)]
    assert len(rest) == 1 and "pytest" in rest[0]


def test_what_it_names_exists() -> None:
    for name in set(re.findall(r"`((?:examples|tests)/[\w./]+)`", GUIDE)):
        assert (ROOT / "docs" / name).exists() or (ROOT / name).exists(), name
