"""Starting: in order, each after the ack of the one before; and what becomes of one that fails, declines or hangs."""

from __future__ import annotations

import anyio
import pytest

from supervisor import (
    ChildStartFailed,
    CoolDown,
    NotRunning,
    StartFailed,
    SupervisorError,
    SupervisorSpec,
    TreeStartFailed,
    open_tree,
)
from supervisor.testing import EventLog, eventually
from tests.supervisor.conformance.kit import Kind, Plan, end, exited, lives, started, statuses, told
from tests.supervisor.process_actors import Add, Note, Noted
from tests.supervisor.processes import next_life, tree_of

pytestmark = pytest.mark.anyio


async def test_children_start_in_order_each_after_the_ack_of_the_one_before(kind: Kind) -> None:
    slow = kind.child("b", {"start_for": 0.05})
    children = [kind.child("a"), slow, kind.child("c")]
    async with tree_of() as tree:
        log = EventLog(tree.stream, ["lifecycle", "steps"])
        await tree.supervisor("root").start_child(SupervisorSpec("group", children))
        order = [entry.get("begins") or f"{entry['event']} {entry['actor']}" for entry in log.read()]
        assert order == ["a", "started a", "b", "started b", "c", "started c", "started group"]


async def test_a_failing_boot_stops_what_has_started_and_is_not_retried(kind: Kind) -> None:
    plan = Plan({"fail": "no boiler"})
    group = SupervisorSpec("group", [*kind.children("a", "b"), kind.child("c", plan), kind.child("d")])
    async with tree_of() as tree:
        log = EventLog(tree.stream)
        with pytest.raises(ChildStartFailed, match="c: no boiler"):
            await tree.supervisor("root").start_child(group)
        assert told(log, "a", "b", "c", "d") == [*started("ab"), *exited("cba")]
        assert plan.tried == 1
        with pytest.raises(NotRunning):
            await tree.ref("a").call(Add(1, 1))


async def test_a_failing_boot_of_the_root_says_who_and_why(kind: Kind) -> None:
    with pytest.raises(TreeStartFailed) as caught:
        async with tree_of(kind.child("a"), kind.child("b", {"fail": "not today"})):
            raise AssertionError("it started")
    reason = caught.value.reason
    assert isinstance(reason, StartFailed)
    assert (reason.error_type, reason.text) == ("ValueError", "b: not today")
    assert "raise ValueError(self.fail)" in reason.traceback


async def test_a_child_that_fails_to_start_is_discarded_and_its_id_is_free(kind: Kind) -> None:
    plan = Plan({"fail": "not yet"})
    async with tree_of(kind.child("other")) as tree:
        root = tree.supervisor("root")
        with pytest.raises(ChildStartFailed, match="not yet"):
            await root.start_child(kind.child("a", plan))
        assert await lives(tree) == {"other": 1}
        await root.start_child(kind.child("a", plan))
        assert await statuses(tree) == {"other": "running", "a": "running"}


async def test_a_child_that_fails_to_start_again_by_hand_is_kept(kind: Kind) -> None:
    plan = Plan({}, {"fail": "not yet"})
    async with tree_of(kind.child("a", plan)) as tree:
        root = tree.supervisor("root")
        await root.terminate_child("a")
        with pytest.raises(ChildStartFailed, match="not yet"):
            await root.restart_child("a")
        assert await statuses(tree) == {"a": "stopped"}
        await root.restart_child("a")
        assert await lives(tree) == {"a": 3}


async def test_a_failing_restart_is_tried_again_and_each_attempt_counts(kind: Kind) -> None:
    plan = Plan({}, {"fail": "once"}, {"fail": "twice"})
    async with tree_of(kind.child("a", plan), intensity=3, period=600.0) as tree:
        log = EventLog(tree.stream)
        end(tree, "a")
        await log.wait_for(event="started", actor="a", incarnation=4)
        reasons = [entry["reason"] for entry in log.read(event="restarting")]
        assert [reason.split(": ")[-1] for reason in reasons] == ["boom", "once", "twice"]
        end(tree, "a")
        with anyio.fail_after(5):
            assert "maximum restart intensity" in str((await tree.wait()).reason)


async def test_a_start_past_its_limit_fails_and_has_ended_first(kind: Kind) -> None:
    plan = Plan({"start_for": 60.0})
    spec = kind.child("a", plan, start_timeout=0.5)
    async with tree_of() as tree:
        log, root = EventLog(tree.stream), tree.supervisor("root")
        with anyio.fail_after(5), pytest.raises(ChildStartFailed, match=r"no ack within 0\.5 s"):
            await root.start_child(spec)
        assert told(log) == ["exited a"], "it has ended before the failure was told"
        await root.start_child(spec)
        assert await statuses(tree) == {"a": "running"}


async def test_a_restart_past_its_limit_is_tried_again(kind: Kind) -> None:
    plan = Plan({}, {"start_for": 60.0})
    async with tree_of(kind.child("a", plan, start_timeout=0.5)) as tree:
        log = EventLog(tree.stream)
        end(tree, "a")
        await log.wait_for(event="started", actor="a", incarnation=3)
        assert "StartTimeout" in log.read(event="restarting")[1]["reason"]


@pytest.mark.parametrize("restart", ["transient", "temporary"])
async def test_a_child_may_decline(kind: Kind, restart: str) -> None:
    async with tree_of(kind.child("a", {"decline": True}, restart=restart), kind.child("b")) as tree:
        waits = ("running", "exited")
        await eventually(lambda: not any(one.id == "a" and one.status in waits for one in tree.view().children))
        expected = {"b": "running"} if restart == "temporary" else {"a": "stopped", "b": "running"}
        assert await statuses(tree) == expected


async def test_terminating_a_child_in_the_middle_of_its_restart_ends_that(kind: Kind) -> None:
    plan = Plan({}, {"start_for": 60.0})
    async with tree_of(kind.child("a"), kind.child("b", plan, start_timeout=60.0)) as tree:
        log = EventLog(tree.stream, ["lifecycle", "steps"])
        end(tree, "b")
        await log.wait_for(begins="b")
        with anyio.fail_after(5):
            await tree.supervisor("root").terminate_child("b")
        assert told(log, "b") == ["exited b", "exited b"]
        assert await statuses(tree) == {"a": "running", "b": "stopped"}


async def test_a_stop_in_the_middle_of_the_boot_ends_it(kind: Kind) -> None:
    slow = kind.child("b", {"start_for": 60.0}, start_timeout=60.0)
    async with tree_of() as tree, anyio.create_task_group() as tasks:
        log = EventLog(tree.stream, ["lifecycle", "steps"])

        async def start() -> None:
            with pytest.raises(SupervisorError):
                await tree.supervisor("root").start_child(SupervisorSpec("group", [kind.child("a"), slow]))

        tasks.start_soon(start)
        await log.wait_for(begins="b")
        tree.request_shutdown("enough")
        with anyio.fail_after(5):
            await tree.wait()
        assert told(log, "a", "b") == ["started a", "exited b", "exited a"]


async def test_a_child_that_fails_at_boot_cools_down_and_its_supervisor_counts_as_started(kind: Kind) -> None:
    spec = kind.child("a", Plan({"fail": "cold"}), on_give_up=CoolDown(0.05))
    async with open_tree(SupervisorSpec("root", [spec, kind.child("b")])) as tree:
        assert (await lives(tree))["b"] == 1
        tree.ref("a").cast(Note(7))
        assert (await next_life(tree.ref("a"), 1))["incarnation"] == 2
        assert await tree.ref("a").call(Noted()) == [7], "casts wait for a child that cools down"
