"""Process children under one_for_all are a group: one host, and they start, fail and restart as one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from supervisor import ChildSpec, ProcessStart, Shutdown, StartFailed, SupervisorSpec, Tree, TreeStartFailed, custody
from supervisor import open_tree as open_any_tree
from supervisor.hosting import HostFailed, ProcessHost
from supervisor.testing import EventLog, settle
from tests.supervisor.process_actors import Add, BeatFor, Boom, Kill, Noted, Quit, StartGrandchild
from tests.supervisor.processes import WORKER, next_life, process_child, runs, tree_of

pytestmark = pytest.mark.anyio

RANKS = ("rank0", "rank1", "rank2", "rank3")


@asynccontextmanager
async def group_of(*children: ChildSpec, **spec: Any) -> AsyncIterator[tuple[Tree, EventLog]]:
    """A tree whose children fall as one."""
    async with tree_of(*children, strategy="one_for_all", **spec) as tree:
        yield tree, EventLog(tree.stream)


def ranks(**spec: Any) -> list[ChildSpec]:
    return [process_child(name, **spec) for name in RANKS]


async def everyone(tree: Tree, before: int = 0) -> dict[str, dict[str, int]]:
    """Who each of them is, in an incarnation after number ``before``."""
    return {child.id: await next_life(tree.ref(child.id), before) for child in tree.view().children}


def pids(group: dict[str, dict[str, int]]) -> list[int]:
    return [who["pid"] for who in group.values()]


def hosts(group: dict[str, dict[str, int]]) -> set[int]:
    return {who["parent"] for who in group.values()}


def in_order(log: EventLog) -> list[str]:
    """What became of whom, in the order in which it did."""
    told = [entry for entry in log.read() if entry.get("event") in ("started", "exited") and entry["actor"] != "root"]
    return [f"{entry['event']} {entry['actor']}" for entry in told]


async def test_a_group_has_one_host_and_each_of_it_a_process() -> None:
    async with group_of(*ranks()) as (tree, _):
        group = await everyone(tree)
        (host,) = hosts(group)
        assert len(set(pids(group))) == len(RANKS)
        assert {pid.number for pid in custody.descendants(os.getpid())} == {host, *pids(group)}
    assert custody.descendants(os.getpid()) == []


async def test_only_those_that_fall_together_and_want_the_same_share_a_host() -> None:
    alike = [process_child("first"), process_child("second")]
    other = process_child("third", start=ProcessStart(WORKER, environment={"RANK": "1"}))
    async with tree_of(*alike, strategy="rest_for_one") as tree:
        assert len(hosts(await everyone(tree))) == 2
    async with group_of(*alike, other) as (tree, _):
        group = await everyone(tree)
        assert group["first"]["parent"] == group["second"]["parent"] != group["third"]["parent"]


async def crash(tree: Tree, pid: int) -> None:
    tree.ref("rank1").cast(Boom())


async def kill(tree: Tree, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def hang(tree: Tree, pid: int) -> None:
    tree.ref("rank1").cast(BeatFor(60, 0.3))
    await tree.ref("rank1").call(Noted())
    os.kill(pid, signal.SIGSTOP)


async def end(tree: Tree, pid: int) -> None:
    tree.ref("rank1").cast(Quit())


@pytest.mark.parametrize("fall", [crash, kill, hang, end])
async def test_when_one_falls_all_have_ended_before_any_starts_again(
    fall: Callable[..., Any], record_property: Callable[[str, object], None]
) -> None:
    async with group_of(*ranks(liveness=60.0)) as (tree, log):
        before = await everyone(tree)
        grandchild = await tree.ref("rank2").call(StartGrandchild(True))
        log.read()
        log.entries.clear()
        await fall(tree, before["rank1"]["pid"])
        await log.wait_for(event="exited", actor="rank1")
        begun = time.monotonic()
        after = await everyone(tree, 1)
        record_property("seconds until all four ranks answered again", round(time.monotonic() - begun, 3))
        assert time.monotonic() - begun < 5
        others = [f"exited {name}" for name in ("rank3", "rank2", "rank0")]
        assert in_order(log) == ["exited rank1", *others, *(f"started {name}" for name in RANKS)]
        assert {who["incarnation"] for who in after.values()} == {2}
        assert hosts(after) == hosts(before), "the host was not kept"
        assert not any(runs(pid) for pid in [*pids(before), grandchild])
        assert tree.view().children[1].restarts == 1


async def test_the_death_of_the_host_is_one_failure_and_the_next_group_has_one_host_again() -> None:
    async with group_of(*ranks(), intensity=1, period=600.0) as (tree, _):
        before = await everyone(tree)
        grandchild = await tree.ref("rank3").call(StartGrandchild(True))
        (host,) = hosts(before)
        os.kill(host, signal.SIGKILL)
        after = await everyone(tree, 1)
        assert {who["incarnation"] for who in after.values()} == {2}
        assert len(hosts(after)) == 1
        assert hosts(after) != hosts(before)
        assert not any(runs(pid) for pid in [host, *pids(before), grandchild])


async def test_a_host_that_does_not_obey_is_killed_with_all_and_they_come_back_in_another() -> None:
    """With them the one that was stopped by hand: so it is in any group of OTP."""
    async with group_of(*ranks(shutdown=0.1)) as (tree, _):
        before = await everyone(tree)
        (host,) = hosts(before)
        os.kill(host, signal.SIGSTOP)
        with anyio.fail_after(10):
            await tree.supervisor("root").terminate_child("rank1")
        after = await everyone(tree, 1)
        assert {who["incarnation"] for who in after.values()} == {2}
        assert len(hosts(after)) == 1
        assert not any(runs(pid) for pid in [host, *pids(before)])


async def test_one_failure_too_many_ends_all_and_their_host() -> None:
    async with group_of(*ranks(), intensity=1, period=600.0) as (tree, log):
        tree.ref("rank0").cast(Kill())
        group = await everyone(tree, 1)
        tree.ref("rank3").cast(Boom("again"))
        with anyio.fail_after(10):
            report = await tree.wait()
        assert isinstance(report.reason, Shutdown)
        assert "rank3 (crash: ValueError: again)" in str(report.reason)
        assert in_order(log)[-4:] == [f"exited {name}" for name in reversed(RANKS)]
        assert not any(runs(pid) for pid in [*pids(group), *hosts(group)])


async def test_a_group_stops_in_reverse_and_takes_its_host_along() -> None:
    async with group_of(*ranks()) as (tree, log):
        group = await everyone(tree)
    assert in_order(log) == [f"exited {name}" for name in reversed(RANKS)]
    assert {entry["reason"] for entry in log.read(event="exited")} == {"shutdown"}
    assert not any(runs(pid) for pid in [*pids(group), *hosts(group)])


async def test_a_group_of_which_one_does_not_start_at_boot_is_not_there_at_all() -> None:
    children = [process_child("rank0"), process_child("rank1", {"fail": "no memory"}), process_child("rank2")]
    with pytest.raises(TreeStartFailed) as caught:
        async with group_of(*children):
            raise AssertionError("it started")
    assert isinstance(caught.value.reason, StartFailed)
    assert caught.value.reason.text == "rank1: no memory"
    assert custody.descendants(os.getpid()) == []


class Plan:
    """What the second of a group is started with, each time."""

    def __init__(self) -> None:
        self.next: list[dict[str, Any]] = []

    def __call__(self) -> dict[str, Any]:
        return self.next.pop(0) if self.next else {}


async def test_a_group_of_which_one_does_not_start_again_starts_over() -> None:
    plan = Plan()
    second = process_child("rank1", start=ProcessStart(WORKER, plan, preload=("tests.supervisor.process_actors",)))
    async with group_of(process_child("rank0"), second, process_child("rank2")) as (tree, log):
        before = await everyone(tree)
        log.read()
        log.entries.clear()
        plan.next = [{"fail": "not yet"}]
        tree.ref("rank2").cast(Kill())
        await log.wait_for(event="started", actor="rank2")
        after = await everyone(tree, 1)
        downs, again = ["exited rank2", "exited rank1", "exited rank0"], ["started rank0", "started rank1"]
        assert in_order(log) == [*downs, "started rank0", "exited rank1", "exited rank0", *again, "started rank2"]
        assert [who["incarnation"] for who in after.values()] == [3, 3, 2]
        assert hosts(after) == hosts(before)


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_a_group_that_is_given_up_in_the_middle_of_its_restart_leaves_nothing(how: str) -> None:
    plan = Plan()
    second = process_child("rank1", start=ProcessStart(WORKER, plan), start_timeout=60.0)
    children = [process_child("rank0", start=ProcessStart(WORKER)), second, process_child("rank2")]
    with anyio.CancelScope() as scope, anyio.fail_after(10):
        async with group_of(*children) as (tree, _):
            steps = EventLog(tree.stream, ["steps"])
            plan.next = [{"start_for": 60.0}]
            tree.ref("rank2").cast(Kill())
            await steps.wait_for(begins="rank1")
            if how == "cancelled":
                scope.cancel()
                await anyio.sleep_forever()
            tree.request_shutdown("enough")
            await tree.wait()
    assert custody.descendants(os.getpid()) == []


async def test_a_cancelled_boot_of_a_group_leaves_nothing() -> None:
    slow = process_child("rank1", {"start_for": 60.0}, start_timeout=60.0)
    with anyio.move_on_after(2.0) as scope:
        async with group_of(process_child("rank0"), slow):
            raise AssertionError("it started")
    assert scope.cancelled_caught
    assert custody.descendants(os.getpid()) == []


async def test_what_one_left_behind_goes_with_it_and_what_a_sibling_has_stays() -> None:
    """All of them are orphans in sessions of their own, below one host."""
    async with group_of(*ranks()) as (tree, _):
        group = await everyone(tree)
        theirs = {name: await tree.ref(name).call(StartGrandchild(True)) for name in RANKS}
        await tree.supervisor("root").terminate_child("rank1")
        assert [name for name in RANKS if not runs(theirs[name])] == ["rank1"]
        await tree.supervisor("root").restart_child("rank1")
        again = await everyone(tree)
        assert again["rank1"]["incarnation"] == 2
        assert again["rank1"]["parent"] == group["rank1"]["parent"], "the others had kept the host"
        assert {name: who for name, who in again.items() if name != "rank1"} == {
            name: who for name, who in group.items() if name != "rank1"
        }
        assert [name for name in RANKS if not runs(theirs[name])] == ["rank1"]
    assert not any(runs(pid) for pid in theirs.values())


async def test_a_temporary_member_ends_alone_and_one_that_joins_comes_to_the_same_host() -> None:
    async with group_of(process_child("rank0"), process_child("helper", restart="temporary")) as (tree, log):
        before = await everyone(tree)
        tree.ref("helper").cast(Kill())
        await log.wait_for(event="exited", actor="helper")
        await tree.supervisor("root").start_child(process_child("rank1"))
        after = await everyone(tree)
        assert after["rank0"] == before["rank0"]
        assert after["rank1"]["parent"] == before["rank0"]["parent"]


async def test_a_group_starts_again_with_its_supervisor_in_the_host_that_it_had() -> None:
    inner = SupervisorSpec("group", ranks(), strategy="one_for_all", intensity=0)
    async with open_any_tree(SupervisorSpec("root", [inner], intensity=5)) as tree:
        before = [await next_life(tree.ref(name), 0) for name in RANKS]
        tree.ref("rank2").cast(Kill())
        after = [await next_life(tree.ref(name), 1) for name in RANKS]
        assert {who["parent"] for who in after} == {who["parent"] for who in before}
        assert await tree.ref("rank3").call(Add(1, 2)) == 3


async def test_a_start_that_hangs_in_a_group_is_ended_and_the_others_go_with_it() -> None:
    plan = Plan()
    second = process_child("rank1", start=ProcessStart(WORKER, plan), start_timeout=1.0)
    async with group_of(process_child("rank0", start=ProcessStart(WORKER)), second) as (tree, log):
        plan.next = [{"start_for": 60.0}]
        before = await everyone(tree)
        tree.ref("rank0").cast(Kill())
        await next_life(tree.ref("rank1"), 2)
        assert "StartTimeout" in log.read(event="restarting", actor="rank1")[0]["reason"]
        assert hosts(await everyone(tree, 2)) == hosts(before)


async def test_a_host_is_not_shared_unless_it_was_made_for_that() -> None:
    host = ProcessHost((), {})
    try:
        link, first = await host.fork()
        with link, pytest.raises(HostFailed, match=f"PID {first.pid}, has not ended"):
            await host.fork()
        assert (await host.exited(first.number)).pid == first.pid, "it has seen the end of its link"
    finally:
        await host.end()


async def test_several_wait_for_one_host_and_each_hears_of_its_own_child_whoever_leaves() -> None:
    host = ProcessHost((), {}, shared=True)
    ended: list[int] = []
    impatient = anyio.CancelScope()

    async def leave() -> None:
        with impatient:
            await host.exited(1)

    async def live(number: int) -> None:
        ended.append((await host.exited(number)).number)

    try:
        links = [link for link, _ in [await host.fork() for _ in range(3)]]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            await settle()  # it reads for all
            tasks.start_soon(live, 2)
            tasks.start_soon(live, 3)
            await settle()
            impatient.cancel()
            for link in reversed(links):
                link.close()  # which ends its child
        assert sorted(ended) == [2, 3]
        assert (await host.exited(1)).status != 0
    finally:
        await host.end()


async def test_whoever_signals_a_child_while_its_host_is_being_buried_signals_nobody() -> None:
    host = ProcessHost((), {}, shared=True)
    ended: list[int] = []

    async def live(number: int) -> None:
        ended.append((await host.exited(number)).status)

    try:
        link, forked = await host.fork()
        with link:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(live, forked.number)
                await settle()
                assert host.pid is not None
                os.kill(host.pid, signal.SIGKILL)
                while not ended:
                    host.signal(forked.number, signal.SIGKILL)
                    await anyio.sleep(0)
        assert ended == [signal.SIGKILL]
    finally:
        await host.end()
