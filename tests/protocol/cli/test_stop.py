"""``stop`` returns when the daemon is gone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess

import pytest

from protocol.cli.failure import CommandFailed
from protocol.cli.stop import _held, _wait_for_lock
from protocol.home import Home
from tests.protocol.cli.conftest import COMMAND, Run, environment, until


@pytest.mark.parametrize(("word", "mode"), [((), "gently"), (("--after-file",), "after_file")])
def test_waits_until_it_is_gone(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], word: tuple[str, ...], mode: str
) -> None:
    done = run("stop", *word, "--home", home.root)
    assert (done.returncode, done.stdout) == (0, "")
    assert (home.root / "checkpointed").exists()
    with home.lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert daemon.wait(timeout=5) == 0
    assert [json.loads(line) for line in (home.root / "asked").read_text().splitlines()] == [
        ["SignalHandler", {"type": "stop", "mode": mode}]
    ]


def test_now_may_take_the_answer_with_it(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    done = run("stop", "--now", "--home", home.root)
    assert done.returncode == 0, done.stderr
    assert daemon.wait(timeout=5) == 143
    assert not (home.root / "checkpointed").exists()


def test_a_daemon_that_is_still_starting_obeys_too(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    """SignalHandler starts last; the process obeys signals from its first line on."""
    (home.root / "starting").touch()
    done = run("stop", "--home", home.root)
    assert (done.returncode, daemon.wait(timeout=5)) == (0, 0)
    assert (home.root / "terminated").read_text() == "."


def test_stop_after_the_file_waits_until_a_starting_daemon_is_up(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    starting = home.root / "starting"
    starting.touch()
    command = [*COMMAND, "stop", "--after-file", "--home", str(home.root)]
    asked = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
    until(
        lambda: (home.root / "asked").exists() and (home.root / "asked").read_text().count("\n") > 1, "it asks", asked
    )
    starting.unlink()
    asked.communicate(timeout=10)
    assert (asked.returncode, daemon.wait(timeout=5)) == (0, 0)
    assert not (home.root / "terminated").exists()


def test_by_its_socket_alone(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    assert run("stop", "--socket", home.socket, "--json").returncode == 0
    assert daemon.wait(timeout=5) == 0


def test_a_lock_that_something_left_behind_still_holds_is_told(home: Home) -> None:
    """A forked orphan that inherited the lock holds it on; the home is not free before it goes."""
    home.lock.write_text('{"pid": 77}')
    with home.lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CommandFailed) as failed:
            _wait_for_lock(home, 77, within=0.2)
    assert str(home.lock) in failed.value.what
    assert "stokehold doctor" in failed.value.next
    _wait_for_lock(home, 77, within=0.0)


def test_the_lock_of_the_next_daemon_is_not_waited_for(home: Home) -> None:
    with home.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write('{"pid": 77}')
        lock.flush()
        assert _held(home, 77)
        assert not _held(home, 78)
        lock.truncate(0)
        assert _held(home, 78)
    assert not _held(home, 77)
    home.lock.unlink()
    assert not _held(home, 77)


def test_a_command_that_waits_can_be_interrupted(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGSTOP)
    asked = subprocess.Popen([*COMMAND, "tree", "--home", str(home.root)], env=environment(), stderr=subprocess.PIPE)
    try:
        until(lambda: b"socket" in _where(asked.pid), "it waits for the daemon", asked)
        asked.send_signal(signal.SIGINT)
        _, said = asked.communicate(timeout=10)
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert asked.returncode == 130
    assert said == b""


def _where(pid: int) -> bytes:
    """What the descriptors of a process lead to."""
    found = b""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.fsencode(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found
