"""The examples of the library in other people's programs, run as these would be: over HTTP, and by the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.harness import wait_for

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{ROOT}", "NO_COLOR": "1"}


@contextmanager
def program(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """One that goes on until it is told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-P", *words], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run" / "control.sock"


def cli(path: Path, *words: str, code: int = 0) -> str:
    command = [sys.executable, "-P", "-m", "protocol.cli.main", *words, "--socket", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


def samples(page: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_tree_in_a_trio_program() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "trio_program.py"], capture_output=True, text=True, timeout=60, check=False
    )
    counted = "[('be', 2), ('die', 1), ('is', 1), ('not', 1), ('or', 1), ('question', 1), "
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == counted + "('sleep', 1), ('that', 1), ('the', 1), ('to', 4)]\n"


def test_a_tree_in_a_web_app(path: Path) -> None:
    port = free_port()
    with (
        program(EXAMPLES / "web_app.py", str(port), path) as app,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as web,
    ):

        def answers() -> bool:
            assert app.poll() is None, app.communicate()[0]
            try:
                return web.get("/visit/first").status_code == 200
            except httpx.ConnectError:
                return False

        wait_for("the app", answers)
        number = web.get("/visit/first").json()["visits"]
        assert number >= 2
        assert web.post("/burn").status_code == 202

        def crashed() -> bool:
            found = samples(web.get("/metrics").text)
            return found["app_actor_exits_total", "visits", "crash"] == found["app_actor_restarts_total", "visits"] == 1

        wait_for("the crash and the restart", crashed)
        assert web.get("/visit/first").json() == {"visits": 1}, "the app goes on; the state is fresh"
        assert "visits" in cli(path, "tree")
        assert json.loads(cli(path, "actor", "state", "visits", "--json"))["incarnation"] == 2
        assert json.loads(cli(path, "send", "visits", '{"type": "visit", "page": "by hand"}')) == 1
        app.send_signal(signal.SIGTERM)
        output, _ = app.communicate(timeout=30)
        assert app.returncode == 0, output
        assert "burnt" in output and not path.exists(), "the tree was stopped with the app"


@pytest.fixture(params=["asyncio", "trio"])
def own_tree(request: pytest.FixtureRequest, path: Path) -> Iterator[subprocess.Popen[str]]:
    words = ("-m", "supervisor", "--app", "own_tree:tree", "--backend", str(request.param), path, "0")
    with program(*words) as process:

        def answers() -> bool:
            assert process.poll() is None, process.communicate()[0]
            return path.exists()

        wait_for("the control socket", answers)
        yield process


def state(path: Path, name: str) -> Any:
    return json.loads(cli(path, "actor", "state", name, "--json"))


def wait_for_incarnation(path: Path, name: str, number: int) -> None:
    def is_back() -> bool:
        now = state(path, name)
        return (now["incarnation"], now["status"]) == (number, "running")

    wait_for(f"incarnation {number} of {name}", is_back)


def test_every_command_on_a_tree_of_ones_own(own_tree: subprocess.Popen[str], path: Path) -> None:
    """Of a task and of a process alike: look, say, suspend, resume, restart, trace, follow."""
    drawn = cli(path, "tree")
    assert all(name in drawn for name in ("keeper", "worker", "ControlSocket", "MetricsExporter"))
    for name in ("keeper", "worker"):
        assert (state(path, name)["status"], state(path, name)["pid"] is None) == ("running", name == "keeper")
        cli(path, "send", name, '{"type": "put", "number": 7}')
        assert json.loads(cli(path, "send", name, '{"type": "numbers"}')) == [7]
        cli(path, "actor", "suspend", name)
        assert state(path, name)["status"] == "suspended"
        cli(path, "send", name, '{"type": "numbers"}', "--timeout", "0.2", code=1)
        cli(path, "actor", "resume", name)
        assert json.loads(cli(path, "send", name, '{"type": "numbers"}')) == [7]
        cli(path, "actor", "restart", name)
        assert (state(path, name)["incarnation"], state(path, name)["last_exit"]) == (
            2, "shutdown: restarted on request"
        )  # fmt: skip
        cli(path, "send", name, '{"type": "fail"}')
        wait_for_incarnation(path, name, 3)
        assert "RuntimeError: asked to" in state(path, name)["traceback"]
    told = [json.loads(line) for line in cli(path, "events", "--json").splitlines()]
    assert {event["topic"] for event in told} == {"crashes", "lifecycle", "numbers"}
    assert [event["data"]["actor"] for event in told if event["topic"] == "crashes"] == ["keeper", "worker"]
    for words, topic in ((("events", "-f"), "numbers"), (("actor", "trace", "keeper"), "trace/keeper")):
        with program("-m", "protocol.cli.main", *words, "--socket", path, "--json") as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "listening\n"
            cli(path, "send", "keeper", '{"type": "put", "number": 8}')
            assert json.loads(follower.stdout.readline())["topic"] == topic
    assert "$defs" in json.loads(cli(path, "config", "schema")), "no matter which tree"


def test_its_metrics_and_its_end(own_tree: subprocess.Popen[str], path: Path) -> None:
    cli(path, "send", "worker", '{"type": "fail"}')
    wait_for_incarnation(path, "worker", 2)
    where = state(path, "MetricsExporter")["summary"]["listening"]
    found = samples(httpx.get(f"http://{where}/metrics").text)
    assert found["numbers_actor_exits_total", "worker", "crash"] == 1
    assert found["numbers_actor_restarts_total", "worker"] == found["numbers_actor_up", "worker"] == 1
    assert re.match(r"127\.0\.0\.1:\d+$", where)
    own_tree.send_signal(signal.SIGTERM)
    assert own_tree.wait(30) == 0


def test_misuse_is_one_line() -> None:
    with program("-m", "supervisor", "--app", "own_tree:tree") as process:
        assert process.communicate(timeout=30)[0] == "stokehold: wanted: SOCKET PORT\n"
        assert process.returncode == 2
