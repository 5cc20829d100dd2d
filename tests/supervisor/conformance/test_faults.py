"""What can happen to a process and to no task: it exits, is killed, stopped or locked up, whatever it is doing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from supervisor import ConnectionLost, HandlerFailed, MailboxFull, Restarting, TreeStartFailed
from supervisor.spec import RestartType
from supervisor.testing import EventLog, eventually, settle
from tests.supervisor.conformance.kit import Plan, lives, told
from tests.supervisor.fault_actors import Do, DoCall, Load, Loads, SayAndDie, StartDescendant, faulty
from tests.supervisor.process_actors import Add, Note, Noted, Quit, WhoAreYou
from tests.supervisor.processes import next_life, runs, task_child, tree_of, until_sync

pytestmark = pytest.mark.anyio
WARM = pytest.mark.usefixtures("warm")

ENDS = {
    "exit": "crash: ProcessExited: the process ended with exit status 3 and without a reason",
    "kill": "killed by signal 9",
    "segv": "killed by signal 11",
}
ROOT = str(Path(__file__).resolve().parents[3])
HANGS = ["stop", "lock up", "deaf"]


# ---------------------------------------------------------------- it ends without a word


@WARM
@pytest.mark.parametrize("how", ENDS)
async def test_it_ends_without_a_word_while_it_starts(how: str) -> None:
    plan = Plan({}, {"at_start": how})
    async with tree_of(task_child("Other"), faulty(arguments=plan)) as tree:
        log = EventLog(tree.stream)
        tree.ref("Faulty").cast(Do(how))
        await log.wait_for(event="started", actor="Faulty", incarnation=3)
        assert [entry["reason"] for entry in log.read(event="exited")] == [ENDS[how]] * 2
        assert [entry["will_restart"] for entry in log.topic("crashes")] == [True, True]
        assert (await lives(tree))["Other"] == 1


@WARM
async def test_it_ends_without_a_word_at_boot() -> None:
    with pytest.raises(TreeStartFailed) as caught:
        async with tree_of(faulty(arguments=Plan({"at_start": "exit"}))):
            raise AssertionError("it started")
    assert ENDS["exit"] in str(caught.value.reason)


@WARM
@pytest.mark.parametrize("how", ENDS)
async def test_it_ends_without_a_word_with_a_call_in_hand(how: str) -> None:
    async with tree_of(faulty()) as tree:
        child, log = tree.ref("Faulty"), EventLog(tree.stream)
        in_hand = child.request(DoCall(how), timeout=60)
        behind = child.request(Add(1, 1), timeout=60)
        with anyio.fail_after(5):
            with pytest.raises(ConnectionLost):
                await in_hand
            with pytest.raises(Restarting):
                await behind
        await log.wait_for(event="started", actor="Faulty", incarnation=2)
        assert log.topic("crashes")[0]["reason"] == ENDS[how]
        assert log.topic("crashes")[0]["last_message"] == "DoCall"


@WARM
@pytest.mark.parametrize("how", ENDS)
async def test_it_ends_without_a_word_while_it_stops(how: str) -> None:
    stopping = Plan()
    stopping.usual = {"at_stop": how}
    async with tree_of(task_child("Other"), faulty(arguments=stopping, shutdown=60.0)) as tree:
        log = EventLog(tree.stream)
        with anyio.fail_after(5):
            await tree.supervisor("root").terminate_child("Faulty")
        assert log.read(event="exited")[0]["reason"] == ENDS[how], "it did not end cleanly"
        assert (await lives(tree))["Other"] == 1


@WARM
async def test_leaving_the_interpreter_is_the_crash_of_a_handler() -> None:
    async with tree_of(faulty()) as tree:
        log = EventLog(tree.stream)
        with pytest.raises(HandlerFailed, match="3") as caught:
            await tree.ref("Faulty").call(DoCall("sys.exit"))
        assert caught.value.error_type == "SystemExit"
        await log.wait_for(event="started", actor="Faulty", incarnation=2)


@WARM
@pytest.mark.parametrize(
    ("restart", "left"), [("permanent", {"Faulty": 2}), ("transient", {"Faulty": 2}), ("temporary", {})]
)
async def test_being_killed_is_no_clean_end(restart: RestartType, left: dict[str, int]) -> None:
    async with tree_of(faulty(restart=restart)) as tree:
        log = EventLog(tree.stream)
        tree.ref("Faulty").cast(Do("kill"))
        if left:
            await log.wait_for(event="started", actor="Faulty")
        else:
            await log.wait_for(event="exited", actor="Faulty")
            await settle()
        assert await lives(tree) == left
        (report,) = log.topic("crashes")
        assert (report["reason"], report["will_restart"]) == ("killed by signal 9", bool(left))


@WARM
async def test_a_process_that_is_killed_loses_what_it_has_said_to_itself() -> None:
    async with tree_of(faulty()) as tree:
        child = tree.ref("Faulty")
        child.cast(SayAndDie(Note(1)))
        child.cast(Note(2))
        await next_life(child, 1)
        assert await child.call(Noted()) == [2]


@WARM
async def test_a_thread_that_never_ends_holds_up_no_end() -> None:
    async with tree_of(faulty()) as tree:
        child = tree.ref("Faulty")
        child.cast(Do("thread"))
        child.cast(Quit())
        begun = time.monotonic()
        await next_life(child, 1)
        assert time.monotonic() - begun < 2


# ---------------------------------------------------------------- it hangs


@WARM
@pytest.mark.parametrize("how", HANGS)
async def test_it_hangs_while_it_starts(how: str) -> None:
    plan = Plan({}, {"at_start": how})
    children = [faulty("First"), faulty(arguments=plan, start_timeout=1.0)]  # the first may have to wait for the host
    async with tree_of(*children, strategy="one_for_all") as tree:
        child, log = tree.ref("Faulty"), EventLog(tree.stream, ["lifecycle", "steps"])
        child.cast(Do("kill"))
        hung = (await log.wait_for(life=2))["pid"]
        await log.wait_for(event="started", actor="Faulty", incarnation=3)
        assert "no ack within 1 s" in log.read(event="restarting")[1]["reason"]
        assert not runs(hung)


@WARM
@pytest.mark.parametrize("how", HANGS)
async def test_it_hangs_in_a_handler(how: str) -> None:
    async with tree_of(task_child("Other"), faulty(liveness=0.6)) as tree:
        child, log = tree.ref("Faulty"), EventLog(tree.stream)
        hung = (await child.call(WhoAreYou()))["pid"]
        in_hand = child.request(DoCall(how), timeout=60)
        with anyio.fail_after(10):
            with pytest.raises((ConnectionLost, Restarting)):
                await in_hand
            await log.wait_for(event="started", actor="Faulty", incarnation=2)
        assert log.topic("crashes")[0]["reason"] == "timeout: no progress for 0.6 s in phase 'started'"
        assert not runs(hung)
        assert (await lives(tree))["Other"] == 1


async def test_who_hangs_in_python_is_asked_where(capfd: pytest.CaptureFixture[str]) -> None:
    async with tree_of(faulty(liveness=0.6)) as tree:
        log = EventLog(tree.stream)
        tree.ref("Faulty").cast(Do("lock up"))
        await log.wait_for(event="exited", actor="Faulty")
    assert "in _lock_up" in capfd.readouterr().err


@WARM
@pytest.mark.parametrize("how", HANGS)
async def test_it_hangs_while_it_stops(how: str) -> None:
    stopping = Plan()
    stopping.usual = {"at_stop": how}
    async with tree_of(faulty(arguments=stopping, shutdown=0.3)) as tree:
        log = EventLog(tree.stream)
        hung = (await tree.ref("Faulty").call(WhoAreYou()))["pid"]
        with anyio.fail_after(5):
            await tree.supervisor("root").terminate_child("Faulty")
        assert not runs(hung)
        assert log.read(event="exited")[0]["reason"] == "killed by signal 9"
        assert f"PID {hung}: State:" in log.read(event="overdue")[0]["stack"]


# ---------------------------------------------------------------- somebody else ends it, or its host


@pytest.mark.parametrize("victim", ["child", "host", "both"])
@pytest.mark.parametrize("phase", ["start", "stop"])
async def test_it_is_killed_while_it_starts_or_stops(victim: str, phase: str) -> None:
    plan = Plan({}, {"at_start": "sleep"}) if phase == "start" else Plan({"at_stop": "sleep"})
    async with tree_of(faulty(arguments=plan, start_timeout=60.0, shutdown=60.0)) as tree:
        child, log = tree.ref("Faulty"), EventLog(tree.stream, ["lifecycle", "steps"])
        who = await child.call(WhoAreYou())
        descendant = await child.call(StartDescendant("in a session of its own"))
        async with anyio.create_task_group() as tasks:
            if phase == "start":
                child.cast(Do("kill"))
                begins = await log.wait_for(life=2)
                who = {"pid": begins["pid"], "parent": begins["host"]}
            else:
                tasks.start_soon(tree.supervisor("root").terminate_child, "Faulty")
            await log.wait_for(sleeps=60)
            for pid in {"child": ["pid"], "host": ["parent"], "both": ["parent", "pid"]}[victim]:
                os.kill(who[pid], signal.SIGKILL)
            with anyio.fail_after(10):
                await log.wait_for(event="exited", actor="Faulty", count=2 if phase == "start" else 1)
        if phase == "start":
            await log.wait_for(event="started", actor="Faulty", incarnation=3)
            assert told(log)[:2] == ["exited Faulty"] * 2
        assert not any(runs(pid) for pid in (who["pid"], descendant))
        assert runs(who["parent"]) is (victim == "child" and phase == "start")


@WARM
@pytest.mark.parametrize("end", ["kill", "quit", "terminate"])
@pytest.mark.parametrize(
    "how", ["in a group of its own", "in a session of its own", "a copy of a process with threads"]
)
async def test_what_it_has_started_goes_with_it(how: str, end: str) -> None:
    async with tree_of(faulty()) as tree:
        child = tree.ref("Faulty")
        descendant = await child.call(StartDescendant(how))
        assert runs(descendant)
        if end == "terminate":
            await tree.supervisor("root").terminate_child("Faulty")
        else:
            child.cast(Do("kill") if end == "kill" else Quit())
            await next_life(child, 1)
        assert not runs(descendant)


# ---------------------------------------------------------------- it says what it should not, or nothing


@WARM
@pytest.mark.parametrize("what", ["garble", "promise"])
async def test_who_says_what_cannot_be_understood_is_killed(what: str) -> None:
    async with tree_of(faulty()) as tree:
        log = EventLog(tree.stream)
        pid = (await tree.ref("Faulty").call(WhoAreYou()))["pid"]
        tree.ref("Faulty").cast(Do(what))
        await log.wait_for(event="started", actor="Faulty", incarnation=2)
        assert log.topic("crashes")[0]["error"] == "ProtocolError"
        assert not runs(pid)


@WARM
async def test_who_hangs_up_and_lives_on_is_killed() -> None:
    async with tree_of(faulty()) as tree:
        log = EventLog(tree.stream)
        pid = (await tree.ref("Faulty").call(WhoAreYou()))["pid"]
        tree.ref("Faulty").cast(Do("hang up"))
        await log.wait_for(event="started", actor="Faulty", incarnation=2)
        assert log.read(event="exited")[0]["reason"] == "killed by signal 9"
        assert not runs(pid)


@WARM
@pytest.mark.parametrize("what", ["flood", "flood and block"])
async def test_who_floods_its_link_delays_nobody_and_can_be_stopped(what: str) -> None:
    async with tree_of(task_child("Other"), faulty(shutdown=0.5)) as tree:
        other, noise = tree.ref("Other"), EventLog(tree.stream, ["noise"])
        tree.ref("Faulty").cast(Do(what))
        await noise.wait_for(text="x" * 1000, count=10)
        slowest = 0.0
        for _ in range(50):
            begun = time.monotonic()
            assert await other.call(Add(1, 2)) == 3
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 1.0
        with anyio.fail_after(5):
            await tree.supervisor("root").terminate_child("Faulty")
        assert await lives(tree) == {"Other": 1, "Faulty": 1}


@WARM
async def test_who_reads_nothing_is_told_everything_in_order_when_it_reads_again() -> None:
    async with tree_of(faulty()) as tree:
        child = tree.ref("Faulty")
        pid = (await child.call(WhoAreYou()))["pid"]
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: _state(pid) == "T")
        sent = 0
        with anyio.fail_after(5), pytest.raises(MailboxFull):
            while True:
                child.cast(Load(sent, bytes(300_000)))
                sent += 1
                await anyio.lowlevel.checkpoint()
        assert 64 <= sent <= 64 + 20, "what is under way is bounded by its size, too"
        os.kill(pid, signal.SIGCONT)
        with anyio.fail_after(10):
            for number in range(sent, sent + 64):
                await child.send(Load(number, b""))  # each as soon as there is room
            await eventually(lambda: tree.view().children[0].mailbox == 0)
            assert await child.call(Loads()) == list(range(sent + 64))


# ---------------------------------------------------------------- the whole program is killed


@pytest.mark.parametrize(("strategy", "phase"), [("one_for_one", "running"), ("one_for_all", "starting")])
def test_after_kill_9_of_the_program_nothing_is_left_within_two_seconds(
    anyio_backend: str, strategy: str, phase: str, tmp_path: Path
) -> None:
    """One child is stopped, one is locked up, one is well; each has descendants that heed no signal."""
    report = tmp_path / "report"
    application = ["--app", "tests.supervisor.applications:faulty", "--backend", anyio_backend]
    command = [sys.executable, "-P", "-m", "supervisor", *application, str(report), strategy, phase]
    program = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": ROOT}, start_new_session=True)
    try:
        until_sync(lambda: report.exists() and report.read_text().endswith("\n"), 20.0)
        everyone = json.loads(report.read_text().splitlines()[0])
        until_sync(lambda: _state(everyone["stopped"]) == "T")
        everyone = everyone["pids"]
        assert len(everyone) == 3 + 9 + (1 if strategy == "one_for_all" else 3)
        assert all(runs(pid) for pid in everyone)
    finally:
        program.kill()
        program.wait()
    until_sync(lambda: not any(runs(pid) for pid in everyone), 2.0)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]
