"""Process hosts: what is imported in advance, what happens when something is killed, and that nothing is left."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from supervisor import (
    Backoff,
    ChildSpec,
    CoolDown,
    Killed,
    ProcessStart,
    StartFailed,
    SupervisorSpec,
    TreeStartFailed,
    custody,
    open_tree,
)
from supervisor.hosting import HostFailed, ProcessHost
from supervisor.testing import EventLog, VirtualClock, eventually
from tests.supervisor.helpers import GetAll
from tests.supervisor.process_actors import (
    Add,
    BeatFor,
    Block,
    Boom,
    Downs,
    Kill,
    Noted,
    StartGrandchild,
    Watch,
    WhoAreYou,
)
from tests.supervisor.processes import WORKER, next_life, process_child, runs, task_child, tree_of

pytestmark = pytest.mark.anyio


async def start_failure(start: ProcessStart, **spec: object) -> StartFailed:
    """Open a tree whose child does not start, and return why."""
    with pytest.raises(TreeStartFailed) as caught:
        async with tree_of(process_child(start=start, **spec)):
            raise AssertionError("it started")
    reason = caught.value.reason
    assert isinstance(reason, StartFailed), reason
    return reason


@pytest.mark.parametrize(
    ("module", "error", "text"),
    [
        ("tests.supervisor.preloads.raises", "LookupError", "no boiler in this ship"),
        ("tests.supervisor.preloads.missing", "ModuleNotFoundError", "tests.supervisor.preloads.missing"),
        ("tests.supervisor.preloads.threads", "RuntimeError", "stoker"),
        ("tests.supervisor.preloads.exits", "HostLost", "status 3 while importing"),
    ],
)
async def test_a_module_that_cannot_be_imported_in_advance_is_an_error(module: str, error: str, text: str) -> None:
    reason = await start_failure(ProcessStart(WORKER, preload=("json", module)))
    assert reason.error_type == error
    assert text in reason.text
    assert module in reason.text
    if error == "LookupError":
        assert "raises.py" in reason.traceback


def broken_arguments() -> dict[str, object]:
    raise ArithmeticError("no arguments today")


@pytest.mark.parametrize(
    ("start", "error", "text"),
    [
        (ProcessStart("tests.supervisor.process_actors:Nobody"), "AttributeError", "Nobody"),
        (ProcessStart("tests.supervisor.nowhere:Worker"), "ModuleNotFoundError", "nowhere"),
        (ProcessStart("tests.supervisor.process_actors:Point"), "TypeError", "no Actor class"),
        (ProcessStart(WORKER, lambda: {"fail": "not like this"}), "ValueError", "not like this"),
        (ProcessStart(WORKER, lambda: {"unheard": 1}), "TypeError", "unheard"),
        (ProcessStart(WORKER, lambda: {"greeting": object()}), "TypeError", "object"),
        (ProcessStart(WORKER, broken_arguments), "ArithmeticError", "no arguments today"),
        (ProcessStart(WORKER, lambda: {"greeting": "x" * (17 << 20)}), "FrameTooLarge", "a frame may have"),
    ],
)
async def test_a_start_that_fails_says_why(start: ProcessStart, error: str, text: str) -> None:
    reason = await start_failure(start)
    assert reason.error_type == error
    assert text in reason.text


async def test_a_start_that_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    reason = await start_failure(ProcessStart(WORKER, lambda: {"start_for": 60.0}), start_timeout=1.0)
    assert reason.error_type == "StartTimeout"
    assert time.monotonic() - begun < 5


async def test_a_host_that_is_still_importing_can_be_given_up() -> None:
    slow = ProcessStart(WORKER, preload=("tests.supervisor.preloads.slow",))
    with anyio.move_on_after(1.0) as scope:
        async with tree_of(process_child(start=slow)):
            raise AssertionError("it started")
    assert scope.cancelled_caught
    assert list(custody.descendants(os.getpid())) == []


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_host_that_imports_for_longer_than_a_start_may_take_is_kept_unless_it_is_stopped(
    stopped: bool, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    start = ProcessStart(WORKER, preload=("tests.supervisor.preloads.held",), environment={"HELD_BY": str(held)})
    clock, worker_spec = VirtualClock(), process_child(start=start, start_timeout=2.0)
    async with open_tree(SupervisorSpec("root", [worker_spec], intensity=5), clock=clock) as tree:
        worker, log = tree.ref("Worker"), EventLog(tree.stream)
        before = await worker.call(WhoAreYou())
        held.touch()
        os.kill(before["parent"], signal.SIGKILL)
        await log.wait_for(event="restarting", actor="Worker")
        await eventually(lambda: len(below()) == 1)
        (host,) = below()  # which imports
        if stopped:
            os.kill(host, signal.SIGSTOP)
            await eventually(lambda: custody.stopped(host))
        await clock.advance(2.0)
        again = await log.wait_for(event="restarting", actor="Worker", count=2)
        assert "no ack within 2 s" in again["reason"]
        held.unlink()
        assert ((await next_life(worker, 2))["parent"] == host) is not stopped
        assert runs(host) is not stopped


def below() -> list[int]:
    return [pid.number for pid in custody.descendants(os.getpid())]


async def test_modules_imported_in_advance_are_there_in_the_child_and_not_here() -> None:
    start = ProcessStart(WORKER, preload=("tests.supervisor.process_actors", "wave"), environment={"STOKER": "yes"})
    async with tree_of(process_child(start=start)) as tree:
        pid = (await tree.ref("Worker").call(WhoAreYou()))["pid"]
        with open(f"/proc/{pid}/environ", "rb") as environment:
            assert b"STOKER=yes" in environment.read().split(b"\0")
    assert "wave" not in sys.modules
    assert "STOKER" not in os.environ


async def test_the_garbage_collector_rests_during_imports_and_no_longer() -> None:
    witness = "tests.supervisor.preloads.collector"
    async with tree_of(process_child(start=ProcessStart(f"{witness}:Witness", preload=(witness,)))) as tree:
        assert await tree.ref("Worker").call(GetAll()) == [0, 1]


async def test_a_restart_is_warm() -> None:
    async with tree_of(process_child()) as tree:
        worker = tree.ref("Worker")
        who = await worker.call(WhoAreYou())
        os.kill(who["pid"], signal.SIGKILL)
        begun = time.monotonic()
        again = await next_life(worker, 1)
        assert time.monotonic() - begun < 1.0
        assert again["parent"] == who["parent"], "the host was not kept"


def slow_to_restart(*children: ChildSpec | SupervisorSpec) -> SupervisorSpec:
    backoff = Backoff(first=20.0, factor=1.0, most=20.0, jitter=0.0)
    return SupervisorSpec("root", children, intensity=5, period=600.0, backoff=backoff)


async def test_the_host_stays_warm_through_a_backoff_and_goes_when_it_is_not_wanted() -> None:
    async with open_tree(slow_to_restart(process_child())) as tree:
        who = await tree.ref("Worker").call(WhoAreYou())
        os.kill(who["pid"], signal.SIGKILL)
        await EventLog(tree.stream).wait_for(event="restarting")
        assert runs(who["parent"])
        await tree.supervisor("root").terminate_child("Worker")
        assert not runs(who["parent"])


@pytest.mark.parametrize("nested", [False, True])
async def test_a_tree_closed_during_a_backoff_leaves_no_warm_host(nested: bool) -> None:
    worker = process_child()
    spec = slow_to_restart(SupervisorSpec("inner", [worker], intensity=0) if nested else worker)
    async with open_tree(spec) as tree:
        who = await tree.ref("Worker").call(WhoAreYou())
        os.kill(who["pid"], signal.SIGKILL)
        await EventLog(tree.stream).wait_for(event="restarting", supervisor="root")
        assert runs(who["parent"]), "kept warm"
    assert not runs(who["parent"])


async def test_a_child_that_stops_for_good_takes_its_host_along() -> None:
    async with tree_of(process_child()) as tree:
        who = await tree.ref("Worker").call(WhoAreYou())
        await tree.supervisor("root").terminate_child("Worker")
        assert not runs(who["parent"])
        await tree.supervisor("root").restart_child("Worker")
        assert (await tree.ref("Worker").call(WhoAreYou()))["incarnation"] == 2


async def test_a_mask_of_signals_is_not_inherited() -> None:
    """A program that takes its signals in a thread of its own blocks them all; the host lives by SIGCHLD."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        async with tree_of(process_child()) as tree:
            who = await tree.ref("Worker").call(WhoAreYou())
            tree.ref("Worker").cast(Boom())
            again = await next_life(tree.ref("Worker"), 1)
            assert again["parent"] == who["parent"], "the host had noticed nothing, and was killed for it"
            with open(f"/proc/{again['pid']}/status") as status:
                assert "SigBlk:\t0000000000000000" in status.read()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def test_nothing_is_left_after_the_tree() -> None:
    async with tree_of(process_child("First"), process_child("Second")) as tree:
        await tree.ref("First").call(StartGrandchild())
        assert len(custody.descendants(os.getpid())) == 5
    assert custody.descendants(os.getpid()) == []


@pytest.mark.parametrize("forks", [False, True])
async def test_what_a_killed_child_has_started_is_gone_before_the_next_incarnation(forks: bool) -> None:
    async with tree_of(process_child()) as tree:
        worker = tree.ref("Worker")
        grandchild = await worker.call(StartGrandchild(forks))
        assert runs(grandchild)
        assert os.getsid(grandchild) != (await worker.call(WhoAreYou()))["session"]
        worker.cast(Kill())
        await next_life(worker, 1)
        assert not runs(grandchild)


async def test_a_killed_host_takes_everything_along_and_another_serves_the_next_incarnation() -> None:
    async with tree_of(task_child("Watcher"), process_child()) as tree:
        worker = tree.ref("Worker")
        tree.ref("Watcher").cast(Watch("Worker"))
        who = await worker.call(WhoAreYou())
        grandchild = await worker.call(StartGrandchild(True))
        os.kill(who["parent"], signal.SIGKILL)
        again = await next_life(worker, 1)
        assert again["parent"] != who["parent"]
        assert not any(runs(pid) for pid in (who["pid"], who["parent"], grandchild))


async def test_a_host_that_was_stopped_is_killed_when_it_does_not_obey() -> None:
    async with tree_of(process_child(shutdown=0.1)) as tree:
        worker = tree.ref("Worker")
        who = await worker.call(WhoAreYou())
        grandchild = await worker.call(StartGrandchild())
        os.kill(who["parent"], signal.SIGSTOP)
        with anyio.fail_after(10):
            await tree.supervisor("root").terminate_child("Worker")
        assert not any(runs(pid) for pid in (who["pid"], who["parent"], grandchild))


async def test_a_stopped_process_is_found_by_its_silence() -> None:
    async with tree_of(process_child(liveness=0.5)) as tree:
        with tree.stream.subscribe(["crashes"]) as crashes:
            worker = tree.ref("Worker")
            who = await worker.call(WhoAreYou())
            worker.cast(BeatFor(60, 0.5))
            await worker.call(Noted())
            os.kill(who["pid"], signal.SIGSTOP)
            with anyio.fail_after(5):
                report = (await anext(aiter(crashes))).data
            assert report["reason"] == "timeout: no progress for 0.5 s in phase 'beating'"
            await next_life(worker, 1)
            assert not runs(who["pid"])


async def test_beats_from_a_thread_keep_a_busy_process_alive_until_they_end() -> None:
    async with tree_of(process_child(liveness=60.0)) as tree:
        with tree.stream.subscribe(["crashes"]) as crashes:
            worker = tree.ref("Worker")
            worker.cast(BeatFor(1.5, 0.3))
            worker.cast(Block(60))  # the event loop itself is of no help any more
            begun = time.monotonic()
            with anyio.fail_after(10):
                report = (await anext(aiter(crashes))).data
            assert 1.4 < time.monotonic() - begun < 5
            assert "beating" in report["reason"]


async def test_without_a_limit_silence_means_nothing() -> None:
    async with tree_of(process_child()) as tree:
        worker = tree.ref("Worker")
        who = await worker.call(WhoAreYou())
        os.kill(who["pid"], signal.SIGSTOP)
        await anyio.sleep(0.5)  # what does not happen cannot be waited for
        os.kill(who["pid"], signal.SIGCONT)
        assert await worker.call(WhoAreYou()) == who


async def test_a_forked_copy_of_this_process_does_not_keep_the_host_alive() -> None:
    async with tree_of(process_child()) as tree:
        who = await tree.ref("Worker").call(WhoAreYou())
        copy = os.fork()
        if copy == 0:
            time.sleep(30)
            os._exit(0)
        try:
            with anyio.fail_after(5):
                await tree.supervisor("root").terminate_child("Worker")
            assert not runs(who["parent"])
        finally:
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)


async def test_every_end_of_a_killed_child_is_reported_once() -> None:
    async with tree_of(task_child("Watcher"), process_child()) as tree:
        watcher, worker = tree.ref("Watcher"), tree.ref("Worker")
        watcher.cast(Watch("Worker"))
        for life in range(1, 6):
            os.kill((await next_life(worker, life - 1))["pid"], signal.SIGKILL)
        await next_life(worker, 5)
        assert await watcher.call(Downs()) == [f"Worker#{life}: {Killed(9)}" for life in range(1, 6)]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("victim", ["child", "host"])
async def test_a_machine_out_of_descriptors_fails_the_start_and_nothing_else(victim: str) -> None:
    spec = SupervisorSpec("root", [task_child("Other"), process_child()], intensity=2, on_give_up=CoolDown(0.1))
    async with open_tree(spec) as tree:
        worker, log = tree.ref("Worker"), EventLog(tree.stream)
        who = await worker.call(WhoAreYou())
        with no_descriptor_left():
            os.kill(who["pid" if victim == "child" else "parent"], signal.SIGKILL)
            await log.wait_for(event="cooling_down", actor="Worker")
            assert await tree.ref("Other").call(Add(1, 2)) == 3
        assert "Too many open files" in log.read(event="exited", actor="Worker")[-1]["reason"]
        await next_life(worker, 1)
        assert not runs(who["pid"])
        assert (await tree.ref("Other").call(WhoAreYou()))["incarnation"] == 1
    assert custody.descendants(os.getpid()) == []


async def test_a_host_out_of_descriptors_says_so_at_once() -> None:
    host = ProcessHost((), {})
    try:
        link, first = await host.fork()
        with link:
            os.kill(first.pid, signal.SIGKILL)
            await host.exited(first.number)
        assert host.pid is not None
        soft, hard = resource.prlimit(host.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (3, hard))
        with pytest.raises(HostFailed, match="descriptor"), anyio.fail_after(5):
            await host.fork()
        resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (soft, hard))
        link, second = await host.fork()
        link.close()
        await host.exited(second.number)
    finally:
        await host.end()
