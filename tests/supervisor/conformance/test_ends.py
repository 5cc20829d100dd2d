"""What follows an end: OTP's table of restart types, and that nothing of the old incarnation is left for the new."""

from __future__ import annotations

import os

import anyio
import pytest

from supervisor import HandlerFailed, SupervisorSpec, open_tree
from supervisor.spec import RestartType, Strategy
from supervisor.testing import EventLog, settle
from tests.supervisor.conformance.kit import REASONS, How, Kind, Plan, end
from tests.supervisor.process_actors import Boom, BoomCall, Later, Note, Noted, Quit
from tests.supervisor.processes import next_life, task_child, tree_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("how", ["normal", "shutdown", "crash"])
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_restart_type_by_reason(kind: Kind, restart: RestartType, how: How, strategy: Strategy) -> None:
    children = [kind.child("a", restart=restart), task_child("bystander")]
    async with open_tree(SupervisorSpec("root", children, strategy=strategy)) as tree:
        log = EventLog(tree.stream)
        end(tree, "a", how)
        assert (await log.wait_for(event="exited", actor="a"))["reason"] == REASONS[how]
        expected = restart == "permanent" or (restart == "transient" and how == "crash")
        if expected:
            await log.wait_for(event="started", actor="a" if strategy == "one_for_one" else "bystander", incarnation=2)
        await settle()
        known = {child.id: child for child in await tree.supervisor("root").which_children()}
        if expected:
            assert (known["a"].status, known["a"].incarnation, known["a"].restarts) == ("running", 2, 1)
        elif restart == "temporary":
            assert "a" not in known, "a temporary child is forgotten"
        else:
            assert known["a"].status == "stopped", "the specification of a transient child is kept"
        fell_too = expected and strategy != "one_for_one"
        assert known["bystander"].incarnation == (2 if fell_too else 1), "only a needed restart touches siblings"
        assert bool(log.topic("crashes")) is (how == "crash")
        assert bool(log.read(event="restarting")) is expected


async def test_a_crash_report_says_who_why_and_in_what(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        log = EventLog(tree.stream)
        tree.ref("Worker").cast(Boom("the boiler"))
        await log.wait_for(event="started", actor="Worker")
        (report,) = log.topic("crashes")
        assert (report["actor"], report["incarnation"], report["error"]) == ("Worker", 1, "ValueError")
        assert report["reason"] == "crash: ValueError: the boiler"
        assert "process_actors.py" in report["traceback"]
        assert "raise ValueError(message.text)" in report["traceback"]
        assert (report["last_message"], report["will_restart"]) == ("Boom", True)


async def test_an_error_of_a_spawned_task_is_the_crash_of_its_actor(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        log = EventLog(tree.stream)
        tree.ref("Worker").cast(Later(0, Note(1), crash=True))
        await log.wait_for(event="started", actor="Worker")
        assert log.read(event="exited")[0]["reason"] == "crash: ValueError: in a spawned task"


async def test_a_failing_on_stop_makes_a_clean_end_a_crash_and_does_not_hide_an_earlier_one(kind: Kind) -> None:
    async with tree_of(kind.child(arguments={"stop_fail": "while cleaning up"}, restart="transient")) as tree:
        worker, log = tree.ref("Worker"), EventLog(tree.stream)
        worker.cast(Quit())
        await log.wait_for(event="started", actor="Worker", incarnation=2)
        (report,) = log.topic("crashes")
        assert (report["error"], report["will_restart"]) == ("OSError", True)
        worker.cast(Boom("the first"))
        await log.wait_for(event="started", actor="Worker", incarnation=3)
        assert log.topic("crashes")[-1]["error"] == "ValueError"
        assert "OSError: while cleaning up" in log.topic("crashes")[-1]["traceback"]


async def test_an_injected_fault_is_a_crash(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        log = EventLog(tree.stream)
        tree.inject_fault("Worker", KeyError("injected"))
        await log.wait_for(event="started", actor="Worker", incarnation=2)
        assert log.topic("crashes")[0]["error"] == "KeyError"
        assert "injected" in log.topic("crashes")[0]["reason"]


@pytest.mark.parametrize("how", ["normal", "crash", "terminated", "renewed"])
async def test_the_old_incarnation_has_fully_ended_before_the_new_one_starts(kind: Kind, how: str) -> None:
    """Each holds a name of the system for as long as anything of it is there, and takes its time to let go."""
    holding = Plan()
    holding.usual = {"holds": f"conformance-{os.getpid()}-{how}", "stop_for": 0.1}
    async with tree_of(kind.child(arguments=holding)) as tree:
        log, root = EventLog(tree.stream), tree.supervisor("root")
        if how == "terminated":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(root.terminate_child, "Worker")
                await log.wait_for(event="exited", actor="Worker")
            await root.restart_child("Worker")
        elif how == "renewed":
            await root.renew_child("Worker")
        else:
            end(tree, "Worker", how)  # type: ignore[arg-type]
        assert (await next_life(tree.ref("Worker"), 1))["incarnation"] == 2
        assert holding.tried == 2, "a start had failed: the name was still taken"


async def test_timers_end_with_the_incarnation(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker = tree.ref("Worker")
        worker.cast(Later(0.01, Note(1)))
        with anyio.fail_after(5):
            while await worker.call(Noted()) != [1]:
                await anyio.sleep(0.005)
        worker.cast(Later(0.05, Note(2)))
        worker.cast(Boom())
        await next_life(worker, 1)
        worker.cast(Later(0.1, Note(3)))  # due after the one that must not come
        with anyio.fail_after(5):
            while not (noted := await worker.call(Noted())):
                await anyio.sleep(0.005)
        assert noted == [3]


async def test_every_end_is_told_once_and_in_order(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        log = EventLog(tree.stream)
        for life in range(1, 6):
            end(tree, "Worker", "crash")
            await log.wait_for(event="started", actor="Worker", incarnation=life + 1)
        assert [entry["incarnation"] for entry in log.read(event="exited")] == [1, 2, 3, 4, 5]
        assert [entry["incarnation"] for entry in log.read(event="started")] == [2, 3, 4, 5, 6]
        assert (await tree.supervisor("root").which_children())[0].restarts == 5


async def test_the_call_in_hand_of_a_crash_gets_the_error_itself(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        with pytest.raises(HandlerFailed, match="boom in a call") as caught:
            await tree.ref("Worker").call(BoomCall())
        assert caught.value.error_type == "ValueError"
        assert "process_actors.py" in caught.value.traceback
