"""Descendants are found and ended, strangers are not."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor import custody
from supervisor.custody import Pid
from tests.supervisor.processes import runs, until_sync

SLEEPS = "import time; time.sleep(300)"
DEAF = "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(300)"
PARENT = """
import subprocess, sys, time
for session in (False, True):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=session)
    print(child.pid, flush=True)
time.sleep(300)
"""


Spawn = Callable[..., "subprocess.Popen[str]"]
ROOT = str(Path(__file__).resolve().parents[2])


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def test_a_process_is_its_number_and_its_start(spawn: Spawn) -> None:
    process = spawn(SLEEPS)
    pid = custody.identify(process.pid)
    assert pid is not None
    assert pid.number == process.pid
    assert custody.alive(pid)
    assert not custody.alive(Pid(pid.number, pid.started + 1)), "a reused number was taken for the same process"
    process.kill()
    until_sync(lambda: not custody.alive(pid))  # a zombie by now: we have not waited for it
    assert custody.identify(process.pid) == pid
    process.wait()
    assert custody.identify(process.pid) is None


def test_a_signal_never_hits_whoever_has_the_number_now(spawn: Spawn) -> None:
    process = spawn(SLEEPS)
    pid = custody.identify(process.pid)
    assert pid is not None
    assert not custody.send(Pid(pid.number, pid.started - 1), signal.SIGKILL)
    assert custody.alive(pid)
    assert custody.send(pid, signal.SIGKILL)
    assert process.wait(5) == -9
    assert not custody.send(pid, signal.SIGKILL)


def test_a_name_with_brackets_and_spaces_is_read_right(spawn: Spawn) -> None:
    process = spawn("open('/proc/self/comm', 'w').write(') R 1 (x'); print(flush=True)\n" + SLEEPS)
    lines(process, 1)
    assert custody.identify(process.pid) in custody.descendants(os.getpid())


def test_descendants_in_other_sessions_are_found_parents_first(spawn: Spawn) -> None:
    process = spawn(PARENT)
    below = [int(line) for line in lines(process, 2)]
    found = [pid.number for pid in custody.descendants(os.getpid())]
    assert set(below) < set(found)
    assert found.index(process.pid) < min(found.index(pid) for pid in below)
    assert custody.end_all(lambda: custody.descendants(process.pid), 5.0) == []
    assert not any(runs(pid) for pid in below)
    assert runs(process.pid)


@pytest.mark.parametrize("told", [True, False], ids=["told by the kernel", "looked up"])
def test_a_child_is_one_until_it_has_been_waited_for(
    told: bool, spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = spawn(SLEEPS)
    if not told:  # as on a kernel that keeps no lists of children
        for pid in (os.getpid(), process.pid):
            (tmp_path / str(pid)).mkdir()
            (tmp_path / str(pid) / "stat").symlink_to(f"/proc/{pid}/stat")
        monkeypatch.setattr(custody, "_PROC", tmp_path)
    assert process.pid in custody.children()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.pid in custody.children()
    process.wait()
    assert process.pid not in custody.children()


def test_who_is_stopped_is_known(spawn: Spawn) -> None:
    process = spawn(SLEEPS)
    assert not custody.stopped(process.pid)
    process.send_signal(signal.SIGSTOP)
    until_sync(lambda: custody.stopped(process.pid))
    process.kill()
    process.wait()
    assert not custody.stopped(process.pid)


def test_the_tag_outlives_every_ancestor(spawn: Spawn) -> None:
    tag = custody.new_tag()
    process = spawn(PARENT, **{custody.TAG: tag})
    below = [int(line) for line in lines(process, 2)]
    process.kill()
    process.wait()
    assert sorted(pid.number for pid in custody.tagged(tag)) == sorted(below)
    assert custody.end_all(lambda: custody.tagged(tag), 5.0) == []
    assert not any(runs(pid) for pid in below)


def test_only_what_a_dead_owner_has_left_is_abandoned(spawn: Spawn) -> None:
    owner = spawn("from supervisor import custody; print(custody.new_tag(), flush=True)\n" + SLEEPS, PYTHONPATH=ROOT)
    (theirs,) = lines(owner, 1)
    ours = custody.new_tag()
    left, kept = spawn(DEAF, **{custody.TAG: theirs}), spawn(SLEEPS, **{custody.TAG: ours})
    elsewhere = spawn(SLEEPS, **{custody.TAG: "1." + theirs.split(".", 1)[1]})  # of another pid namespace
    lines(left, 1)
    assert left.pid not in [pid.number for pid in custody.abandoned()]
    owner.kill()
    owner.wait()
    found = [pid.number for pid in custody.abandoned()]
    assert left.pid in found
    assert kept.pid not in found
    assert elsewhere.pid not in found


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4.5", "a.b.c.d"])
def test_a_tag_that_is_none_of_ours_has_no_owner(text: str) -> None:
    assert custody.owner_of(text) is None


def test_this_process_owns_its_tags() -> None:
    assert custody.owner_of(custody.new_tag()) == custody.identify(os.getpid())
    assert custody.new_tag() != custody.new_tag()


def test_end_all_gives_up_in_time_on_what_it_cannot_end() -> None:
    begun = time.monotonic()
    immortal = Pid(os.getppid(), 0)  # no such process: it cannot be hit, and is found again and again
    assert custody.end_all(lambda: [immortal], 0.2) == []
    assert 0.15 < time.monotonic() - begun < 2


def test_what_forks_faster_than_it_is_killed_is_ended(spawn: Spawn) -> None:
    tag = custody.new_tag()
    code = """
import os, time
os.setsid()
print(flush=True)
end = time.monotonic() + 30
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""
    process = spawn(code, **{custody.TAG: tag})
    lines(process, 1)
    assert custody.end_all(lambda: custody.tagged(tag), 10.0) == []
    ended, _, _ = select.select([process.stdout], [], [], 5.0)
    assert ended, "one was overlooked: each of them holds the pipe open"
    assert lines(process, 1) == [""]


def test_a_process_dies_with_its_parent(spawn: Spawn) -> None:
    code = """
import os, time
from supervisor import custody
me = os.getpid()
for outlive in (False, True):
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        custody.die_with_parent(me)
        if outlive:
            custody.outlive_parent()
        os.write(into, b"armed")
        time.sleep(30)
        os._exit(0)
    os.read(out, 5)
    print(pid, flush=True)
time.sleep(300)
"""
    process = spawn(code, PYTHONPATH=ROOT)
    first, second = [int(line) for line in lines(process, 2)]
    process.kill()
    process.wait()
    until_sync(lambda: not runs(first), 2.0)
    assert runs(second)
    os.kill(second, signal.SIGKILL)


def test_who_comes_too_late_to_die_with_its_parent_dies_at_once(spawn: Spawn) -> None:
    process = spawn("from supervisor import custody; custody.die_with_parent(1 << 21)", PYTHONPATH=ROOT)
    assert process.wait(10) == 137


def test_the_kernel_is_quoted(spawn: Spawn) -> None:
    process = spawn(DEAF)
    lines(process, 1)
    until_sync(lambda: f"PID {process.pid}: State: S (sleeping)" in custody.describe(process.pid))
    process.kill()
    process.wait()
    assert custody.describe(process.pid) == f"PID {process.pid} is gone"
