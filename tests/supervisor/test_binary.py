"""The binary, from outside: signals in every phase, kills, exit codes, the notify socket, and namesakes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.processes import runs, until_sync

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Program:
    """One run of the binary."""

    def __init__(self, folder: Path, application: str, arguments: tuple[str, ...], backend: str, **popen: Any) -> None:
        self.report = folder / "report"
        self.errors = folder / "errors"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **popen.pop("env", {})}
        options = ["--app", f"tests.supervisor.applications:{application}", "--backend", backend]
        with open(popen.pop("stderr", self.errors), "wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "supervisor", *options, *(one.format(self.report) for one in arguments)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,
                **popen,
            )

    def facts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.report.read_text().splitlines()] if self.report.exists() else []

    def fact(self, key: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until the application has reported this, and return the report."""
        until_sync(lambda: self.process.poll() is not None or any(key in fact for fact in self.facts()), seconds)
        found = [fact for fact in self.facts() if key in fact]
        assert found, f"ended with {self.process.returncode}: {self.stderr()}"
        return found[0]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def send_until_it_ends(self, number: int) -> None:
        """Send again and again: two signals sent at once are one, if the process did not run in between."""
        until_sync(lambda: self.process.poll() is not None or self.send(number), 5.0)

    def code(self, seconds: float = 10.0) -> int:
        return self.process.wait(seconds)

    def stderr(self) -> str:
        return self.errors.read_text(errors="replace")


Run = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with ExitStack() as stack:

        def start(application: str, *arguments: str, backend: str = "asyncio", **popen: Any) -> Program:
            program = Program(tmp_path, application, arguments or ("{}",), backend, **popen)
            stack.callback(program.process.wait)
            stack.callback(program.process.kill)
            assert program.process.stdout is not None
            stack.callback(program.process.stdout.close)
            return program

        yield start


def everything(up: dict[str, Any]) -> list[int]:
    return [up["worker"], up["host"], *up["grandchildren"]]


@BACKENDS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_stop_signal_stops_gently(run: Run, backend: str, number: int) -> None:
    program = run("plain", backend=backend)
    up = program.fact("up")
    program.send(number)
    assert program.code() == 0
    assert program.fact("stopped")["stopped"].startswith("shutdown")
    assert not any(runs(pid) for pid in everything(up))


@BACKENDS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_stop_signal_ends_at_once(run: Run, backend: str, number: int) -> None:
    program = run("stubborn", "{}", "stop", "sleep", "600", backend=backend)
    program.fact("up")
    program.send(signal.SIGTERM)
    until_sync(lambda: len(program.facts()) == 2)  # it hangs in on_stop
    begun = time.monotonic()
    program.send(number)
    assert program.code() == 128 + number
    assert time.monotonic() - begun < 1.5


def test_the_second_signal_leaves_nothing_behind(run: Run) -> None:
    program = run("plain", "{}", "block")
    up = program.fact("up")
    program.send(signal.SIGTERM)
    program.fact("stopped")  # and now it waits for the process that is blocked
    program.send(signal.SIGTERM)
    assert program.code() == 143
    until_sync(lambda: not any(runs(pid) for pid in everything(up)), 2.0)


def test_the_second_signal_works_while_the_event_loop_is_blocked(run: Run) -> None:
    program = run("stubborn", "{}", "stop", "block", "600")
    program.fact("up")
    program.send(signal.SIGTERM)
    until_sync(lambda: len(program.facts()) == 2)
    program.send(signal.SIGINT)
    assert program.code() == 130


def test_a_burst_of_signals(run: Run) -> None:
    program = run("plain", "{}", "block")
    up = program.fact("up")
    program.send_until_it_ends(signal.SIGTERM)
    assert program.code() == 143
    until_sync(lambda: not any(runs(pid) for pid in everything(up)), 2.0)


@BACKENDS
def test_a_stop_signal_during_the_start_stops_gently(run: Run, backend: str) -> None:
    program = run("stubborn", "{}", "start", "sleep", "600", backend=backend)
    program.fact("up")
    program.send(signal.SIGTERM)
    assert program.code() == 0, program.stderr()


def test_a_second_signal_during_a_blocked_start_ends_at_once(run: Run) -> None:
    program = run("stubborn", "{}", "start", "block", "600")
    program.fact("up")
    program.send_until_it_ends(signal.SIGTERM)
    assert program.code() == 143


def test_an_ignored_sigint_and_a_blocked_mask_are_overcome(run: Run) -> None:
    def deaf() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])

    program = run("plain", preexec_fn=deaf)
    program.fact("up")
    program.send(signal.SIGINT)
    assert program.code() == 0


@BACKENDS
def test_signals_are_the_applications_if_it_asks_for_them(run: Run, backend: str) -> None:
    program = run("handling", backend=backend)
    program.fact("up")
    program.send(signal.SIGHUP)
    assert program.fact("signal")["signal"] == signal.SIGHUP
    program.send(signal.SIGTERM)
    assert program.code() == 7
    assert [fact["signal"] for fact in program.facts() if "signal" in fact] == [signal.SIGHUP, signal.SIGTERM]


def test_a_hangup_means_nothing_to_who_does_not_ask(run: Run) -> None:
    program = run("plain")
    program.fact("up")
    program.send(signal.SIGHUP)
    program.send(signal.SIGUSR1)  # read after it
    until_sync(lambda: "Task " in program.stderr())
    assert program.process.poll() is None


@BACKENDS
def test_stacks_asked_for_in_quick_succession_harm_nothing(run: Run, backend: str) -> None:
    program = run("plain", backend=backend)
    program.fact("up")
    for _ in range(20):
        seen = program.errors.stat().st_size
        for _ in range(30):
            program.send(signal.SIGUSR1)
            program.send(signal.SIGQUIT)
        until_sync(lambda seen=seen: "Task " in program.stderr()[seen:])
    program.send(signal.SIGTERM)
    assert program.code() == 0


def test_the_stacks_of_a_blocked_program_are_shown(run: Run) -> None:
    program = run("stubborn", "{}", "start", "block", "600")
    program.fact("up")
    program.send(signal.SIGQUIT)
    until_sync(lambda: " in hang\n" in program.stderr())


@pytest.fixture(params=["a full disk", "a reader that is stuck"])
def deaf_stderr(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "a full disk":
        yield Path("/dev/full")
        return
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(reader, b"x" * 4096):
            continue
    yield fifo
    os.close(reader)


@pytest.mark.parametrize("how", ["second signal", "deadline"])
def test_whatever_is_behind_standard_error_holds_up_no_stop(run: Run, deaf_stderr: Path, how: str) -> None:
    seconds = "600" if how == "second signal" else "0.5"
    program = run("stubborn", "{}", "stop", "sleep", seconds, stderr=deaf_stderr)
    program.fact("up")
    program.send(signal.SIGUSR1)
    program.send(signal.SIGTERM)
    until_sync(lambda: len(program.facts()) == 2)
    if how == "second signal":
        program.send(signal.SIGTERM)
    assert program.code() == (143 if how == "second signal" else 70)


@BACKENDS
def test_all_stacks_on_request(run: Run, backend: str) -> None:
    program = run("plain", backend=backend)
    program.fact("up")
    program.send(signal.SIGUSR1)
    until_sync(lambda: "Task " in program.stderr())
    assert "most recent call first" in program.stderr()
    assert "task_child.py" in program.stderr()
    assert program.process.poll() is None


@BACKENDS
@pytest.mark.parametrize("block", [False, True])
def test_after_kill_9_nothing_is_left_within_two_seconds(run: Run, backend: str, block: bool) -> None:
    program = run("plain", "{}", *(["block"] if block else []), backend=backend)
    up = program.fact("up")
    assert all(runs(pid) for pid in everything(up))
    assert len({os.getsid(pid) for pid in everything(up)}) == 4
    program.send(signal.SIGKILL)
    program.code()
    until_sync(lambda: not any(runs(pid) for pid in everything(up)), 2.0)


def test_after_kill_9_of_the_daemon_and_its_host_the_next_daemon_ends_what_is_left(run: Run) -> None:
    program = run("plain")
    up = program.fact("up")
    os.kill(up["host"], signal.SIGSTOP)
    program.send(signal.SIGKILL)
    program.code()
    os.kill(up["host"], signal.SIGKILL)
    until_sync(lambda: not runs(up["worker"]), 2.0)  # by PDEATHSIG; but nobody was there to end the others
    assert all(runs(pid) for pid in up["grandchildren"])
    program.report.unlink()
    again = run("plain")
    again.fact("up")
    assert not any(runs(pid) for pid in up["grandchildren"])


@pytest.mark.parametrize("how", ["sleep", "block", "shield"])
def test_the_root_deadline(run: Run, how: str) -> None:
    program = run("stubborn", "{}", "stop", how, "0.7")
    program.fact("up")
    begun = time.monotonic()
    program.send(signal.SIGTERM)
    assert program.code() == 70
    assert 0.6 < time.monotonic() - begun < 5
    assert "most recent call first" in program.stderr()


@BACKENDS
def test_the_root_deadline_of_a_stop_that_no_signal_began(run: Run, backend: str) -> None:
    program = run("quitting_stubbornly", backend=backend)
    assert program.code() == 70


@BACKENDS
@pytest.mark.parametrize("code", [0, 42])
def test_the_exit_code_is_the_trees(run: Run, backend: str, code: int) -> None:
    assert run("quitting", str(code), backend=backend).code() == code


def test_a_tree_that_gives_up_exits_1(run: Run) -> None:
    assert run("crashing").code() == 1


@BACKENDS
@pytest.mark.parametrize(
    ("case", "code", "line"),
    [
        ("actor", 1, "stokehold: Another daemon is running (PID 42)\n"),
        ("function", 78, "stokehold: the settings are wrong\n"),
        ("spec", 78, "stokehold: the tree makes no sense: supervisor 'root': the id 'Twice' is used twice\n"),
    ],
)
def test_a_refusal_is_one_line_and_no_traceback(run: Run, backend: str, case: str, code: int, line: str) -> None:
    program = run("refusing", case, backend=backend)
    assert program.code() == code
    assert program.stderr() == line


@BACKENDS
def test_systemd_is_told(run: Run, tmp_path: Path, backend: str) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(10)
        program = run("ticking", backend=backend, env={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"})
        heard = [manager.recv(4096).decode()]
        while not heard[-1].startswith("READY=1"):
            heard.append(manager.recv(4096).decode())
        assert set(heard[:-1]) <= {"EXTEND_TIMEOUT_USEC=30000000", "WATCHDOG=1"}
        assert heard[-1] == "READY=1\nSTATUS=running"
        assert [manager.recv(4096).decode() for _ in range(3)] == ["WATCHDOG=1"] * 3
        assert program.fact("up")["environment"] == []
        program.send(signal.SIGTERM)
        while not (last := manager.recv(4096).decode()).startswith("STOPPING=1"):
            assert last == "WATCHDOG=1"
        assert program.code() == 0


def test_systemd_listens_at_an_abstract_address_and_the_watchdog_may_be_of_another_process(run: Run) -> None:
    name = f"stokehold-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(10)
        run("ticking", env={"NOTIFY_SOCKET": "@" + name, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
        while not (heard := manager.recv(4096).decode()).startswith("READY=1"):
            assert heard != "WATCHDOG=1"
        manager.settimeout(0.5)
        with pytest.raises(TimeoutError):
            manager.recv(4096)


def test_a_folder_of_the_same_name_in_the_current_folder_is_not_run(run: Run, tmp_path: Path) -> None:
    decoy = tmp_path / "supervisor"
    decoy.mkdir()
    for name in ("__init__", "__main__", "host", "child"):
        (decoy / f"{name}.py").write_text("raise SystemExit('the decoy was run')\n")
    program = run("plain", cwd=tmp_path)
    program.fact("up")
    program.send(signal.SIGTERM)
    assert program.code() == 0
    assert "decoy" not in program.stderr()


@pytest.mark.parametrize("mixture", ["their __init__", "their files beside ours"])
def test_supervisords_package_is_refused(tmp_path: Path, mixture: str) -> None:
    """PyPI's supervisord installs into the same folder: its ``__init__`` wins, and our ``__main__`` still loads."""
    site = tmp_path / "site"
    site.mkdir()
    for package in ("protocol", "supervisor"):
        subprocess.run(["cp", "-r", ROOT / package, site], check=True)
    if mixture == "their __init__":
        (site / "supervisor" / "__init__.py").write_text("#\n")
    (site / "supervisor" / "supervisord.py").write_text('"""Theirs."""\n')
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", "--help"],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert done.stdout == ""
    assert "supervisord" in done.stderr
    assert "environment of its own" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "usage:"),
        (["--app", "nonsense"], 2, "MODULE:FUNCTION"),
        (["--app"], 2, "MODULE:FUNCTION"),
        (["--backend=twisted"], 2, "asyncio or trio"),
        (["--app", "tests.supervisor.nowhere:tree"], 78, "there is no module"),
        (["--app", "tests.supervisor.applications:nobody"], 78, "no such function"),
    ],
)
def test_misuse(arguments: list[str], code: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert text in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr
