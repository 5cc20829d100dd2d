"""Stopping: in reverse, the message in hand first, within limits; and asking a supervisor in every state of a child."""

from __future__ import annotations

import anyio
import pytest

from supervisor import (
    AlreadyPresent,
    AlreadyStarted,
    Backoff,
    ChildRestarting,
    ChildRunning,
    NoSuchChild,
    NotRunning,
    Restarting,
    Stopping,
    SupervisorSpec,
    open_tree,
)
from supervisor.testing import EventLog
from tests.supervisor.conformance.kit import Kind, end, exited, failure_of, lives, statuses, told
from tests.supervisor.process_actors import Add, Boom, Note, Noted, Quit, Sleep
from tests.supervisor.processes import next_life, task_child, tree_of, until

pytestmark = pytest.mark.anyio


async def test_children_stop_in_reverse_order_one_after_the_other(kind: Kind) -> None:
    inner = SupervisorSpec("inner", [kind.child("b", {"stop_for": 0.05}), kind.child("c", {"stop_for": 0.05})])
    async with open_tree(SupervisorSpec("root", [kind.child("a"), inner, kind.child("d")])) as tree:
        log = EventLog(tree.stream)
    assert told(log) == [*exited("dcb"), "exited inner", "exited a"]
    assert {entry["reason"] for entry in log.read(event="exited", supervisor="inner")} == {"shutdown"}
    times = [log.read(event="exited", actor=name)[0]["actor"] for name in "cb"]
    assert times == ["c", "b"]


async def test_the_message_in_hand_is_finished_and_on_stop_sees_the_reason(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        pending = worker.request(Sleep(0.1), timeout=5)
        await steps.wait_for(sleeps=0.1)
        await tree.supervisor("root").terminate_child("Worker")
        await pending
        assert steps.topic("steps")[1]["stopped"] == "shutdown: terminated on request"


@pytest.mark.parametrize("where", ["in its hand", "in on_stop"])
async def test_past_its_limit_a_child_is_ended_and_the_next_waits_for_that(kind: Kind, where: str) -> None:
    slow = kind.child("b", {"stop_for": 60.0} if where == "in on_stop" else {}, shutdown=0.2)
    async with open_tree(SupervisorSpec("root", [kind.child("a"), slow])) as tree:
        log = EventLog(tree.stream, ["lifecycle", "steps"])
        if where == "in its hand":
            tree.ref("b").request(Sleep(60.0), timeout=60)
            await log.wait_for(sleeps=60.0)
    assert told(log) == exited("ba")
    assert log.read(event="exited", actor="b")[0]["reason"].startswith("killed")
    assert log.read(event="overdue", actor="b")


async def test_a_stop_without_a_limit_ends_when_the_deadline_of_the_tree_is_shortened(kind: Kind) -> None:
    spec = kind.child("a", {"stop_for": 60.0}, shutdown="infinity")
    async with open_tree(SupervisorSpec("root", [spec])) as tree:
        log = EventLog(tree.stream, ["lifecycle", "steps"])
        tree.request_shutdown("enough")
        await log.wait_for(stopped="shutdown: enough")
        assert not log.read(event="exited")
        tree.shorten_deadline(0)
        with anyio.fail_after(5):
            await tree.wait()
    assert log.read(event="exited", actor="a")[0]["reason"].startswith("killed")


async def test_a_child_that_ends_by_itself_during_the_stop_harms_nothing(kind: Kind) -> None:
    slow = kind.child("c", {"stop_for": 0.2})
    async with open_tree(SupervisorSpec("root", [*kind.children("a", "b"), slow])) as tree:
        log = EventLog(tree.stream, ["lifecycle", "steps"])
        tree.request_shutdown("enough")
        await log.wait_for(stopped="shutdown: enough")
        end(tree, "b", "crash")
        with anyio.fail_after(5):
            await tree.wait()
    assert sorted(told(log, "a", "b", "c")) == exited("abc")
    assert told(log, "a", "c") == exited("ca")


async def test_calls_to_a_stopping_actor_fail_at_once_and_those_that_wait_too(kind: Kind) -> None:
    async with tree_of(kind.child(arguments={"stop_for": 60.0}, shutdown=60.0)) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        in_hand = worker.request(Sleep(60), timeout=60)
        await steps.wait_for(sleeps=60)
        behind = worker.request(Add(1, 1), timeout=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tree.supervisor("root").terminate_child, "Worker")
            with anyio.fail_after(5), pytest.raises(Stopping):
                await behind
            assert not in_hand.done
            assert await failure_of(lambda: worker.call(Add(1, 1))) is Stopping
            tree.shorten_deadline(0)
        assert await failure_of(lambda: worker.call(Add(1, 1))) is NotRunning


async def test_what_is_left_at_an_end_for_good_are_dead_letters(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        worker.request(Sleep(0.1), timeout=5)
        await steps.wait_for(sleeps=0.1)
        for number in range(50):  # more than the window of a link
            worker.cast(Note(number))
        await tree.supervisor("root").terminate_child("Worker")
        assert sum(tree.dead_letters.values()) == 50
        worker.cast(Note(50))
        assert tree.dead_letters["not running"] >= 1
        assert sum(tree.dead_letters.values()) == 51


async def test_every_request_in_every_state(kind: Kind) -> None:
    backoff = Backoff(first=60.0, factor=1.0, most=60.0, jitter=0.0)
    spec = kind.child("a")
    async with open_tree(SupervisorSpec("root", [spec], intensity=5, period=600.0, backoff=backoff)) as tree:
        root = tree.supervisor("root")
        (running,) = await root.which_children()
        assert (running.id, running.kind, running.status, running.incarnation) == ("a", "worker", "running", 1)
        assert (running.pid is not None) is kind.is_process
        with pytest.raises(AlreadyStarted):
            await root.start_child(spec)
        for request in (root.restart_child, root.delete_child):
            with pytest.raises(ChildRunning):
                await request("a")

        await root.terminate_child("a")
        await root.terminate_child("a")  # stopping one that is stopped is no error
        assert await statuses(tree) == {"a": "stopped"}
        with pytest.raises(AlreadyPresent):
            await root.start_child(spec)
        await root.restart_child("a")
        assert await lives(tree) == {"a": 2}

        end(tree, "a")
        await EventLog(tree.stream).wait_for(event="restarting", actor="a")
        assert await statuses(tree) == {"a": "restarting"}
        assert await failure_of(lambda: tree.ref("a").call(Add(1, 1))) is Restarting
        with pytest.raises(AlreadyPresent):
            await root.start_child(spec)
        for request in (root.restart_child, root.delete_child):
            with pytest.raises(ChildRestarting):
                await request("a")
        counts = await root.count_children()
        assert (counts.specs, counts.active, counts.workers) == (1, 0, 1)

        await root.terminate_child("a")
        await root.delete_child("a")
        for request in (root.terminate_child, root.restart_child, root.delete_child):
            with pytest.raises(NoSuchChild):
                await request("a")
        await root.start_child(spec)
        assert await tree.ref("a").call(Add(1, 2)) == 3


async def test_a_restart_on_request_keeps_casts_and_is_not_counted(kind: Kind) -> None:
    async with tree_of(kind.child(), intensity=0) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        worker.request(Sleep(0.05), timeout=5)
        await steps.wait_for(sleeps=0.05)
        for number in range(40):
            worker.cast(Note(number))
        await tree.supervisor("root").renew_child("Worker")
        assert (await next_life(worker, 1))["incarnation"] == 2
        assert await worker.call(Noted()) == list(range(40))


async def test_an_actor_that_ended_cleanly_is_not_running(kind: Kind) -> None:
    async with tree_of(kind.child(restart="transient"), task_child("other")) as tree:
        tree.ref("Worker").cast(Quit())
        await until(lambda: tree.view().children[0].status == "stopped")
        assert tree.view().children[0].last_exit == "normal"
        assert await failure_of(lambda: tree.ref("Worker").call(Add(1, 1))) is NotRunning
        await tree.supervisor("root").restart_child("Worker")
        tree.ref("Worker").cast(Boom())
        await next_life(tree.ref("Worker"), 2)
