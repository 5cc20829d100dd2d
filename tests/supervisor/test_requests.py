"""The run-time interface of a supervisor, in every state of a child, and when the supervisor is busy."""

from __future__ import annotations

import gc
import weakref

import anyio
import pytest

from supervisor import (
    AlreadyPresent,
    AlreadyStarted,
    Backoff,
    ChildCounts,
    ChildRestarting,
    ChildRunning,
    ChildSpec,
    ChildStartFailed,
    CoolDown,
    NoSuchChild,
    SpecError,
    SupervisorError,
    SupervisorSpec,
    SupervisorStopping,
    Tree,
    on,
    open_tree,
)
from supervisor.testing import EventLog, Gate, GatedActor, VirtualClock, eventually, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold, Put

pytestmark = pytest.mark.anyio


async def _statuses(tree: Tree, supervisor: str = "root") -> dict[str, str]:
    return {child.id: child.status for child in await tree.supervisor(supervisor).which_children()}


async def test_every_request_in_every_state() -> None:
    """``child_adm`` of OTP's suite."""
    async with open_tree(SupervisorSpec("root")) as tree:
        root = tree.supervisor("root")
        for request in (root.terminate_child, root.restart_child, root.delete_child):
            with pytest.raises(NoSuchChild):
                await request("a")
        ref = await root.start_child(ChildSpec("a", Counter))
        ref.cast(Put(1))
        assert await ref.call(GetAll()) == [1]
        assert await root.count_children() == ChildCounts(specs=1, active=1, supervisors=0, workers=1)
        with pytest.raises(AlreadyStarted):
            await root.start_child(ChildSpec("a", Counter))
        with pytest.raises(ChildRunning):
            await root.restart_child("a")
        with pytest.raises(ChildRunning):
            await root.delete_child("a")
        await root.terminate_child("a")
        await root.terminate_child("a")
        assert await root.count_children() == ChildCounts(specs=1, active=0, supervisors=0, workers=1)
        assert await _statuses(tree) == {"a": "stopped"}
        with pytest.raises(AlreadyPresent):
            await root.start_child(ChildSpec("a", Counter))
        await root.restart_child("a")
        assert await ref.call(GetAll()) == [], "the same ref, a new incarnation"
        await root.terminate_child("a")
        await root.delete_child("a")
        assert await _statuses(tree) == {}
        await root.start_child(ChildSpec("a", Counter))
        assert await ref.call(GetAll()) == [], "the ref finds the name again"


async def test_counts_with_a_supervisor_below() -> None:
    async with open_tree(SupervisorSpec("root", [SupervisorSpec("s"), ChildSpec("a", Counter)])) as tree:
        assert await tree.supervisor("root").count_children() == ChildCounts(2, 2, 1, 1)
        await tree.supervisor("s").start_child(SupervisorSpec("t", [ChildSpec("b", Counter)]))
        assert await tree.ref("b").call(GetAll()) == []
        assert [child.kind for child in await tree.supervisor("root").which_children()] == ["supervisor", "worker"]


async def test_a_terminated_temporary_child_is_forgotten() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter, restart="temporary")])) as tree:
        await tree.supervisor("root").terminate_child("a")
        assert await _statuses(tree) == {}


async def test_a_name_is_unique_in_the_whole_tree() -> None:
    async with open_tree(SupervisorSpec("root", [SupervisorSpec("s"), ChildSpec("a", Counter)])) as tree:
        with pytest.raises(AlreadyStarted):
            await tree.supervisor("s").start_child(ChildSpec("a", Counter))
        with pytest.raises(AlreadyStarted):
            await tree.supervisor("s").start_child(SupervisorSpec("t", [ChildSpec("a", Counter)]))


async def test_the_names_of_a_subtree_that_does_not_run_are_not_free() -> None:
    """Two actors of one name would share one mailbox."""
    below = SupervisorSpec("s", [SupervisorSpec("t", [ChildSpec("a", Counter)])])
    async with open_tree(SupervisorSpec("root", [below, SupervisorSpec("other")])) as tree:
        await tree.supervisor("root").terminate_child("s")
        with pytest.raises(AlreadyStarted):
            await tree.supervisor("other").start_child(ChildSpec("a", Counter))
        await tree.supervisor("root").delete_child("s")
        with pytest.raises(AlreadyStarted):
            await tree.supervisor("other").start_child(ChildSpec("a", Counter))
        await tree.supervisor("root").start_child(below)
        assert await tree.ref("a").call(GetAll()) == []


async def test_names_that_came_and_went_leave_nothing_behind() -> None:
    async with open_tree(SupervisorSpec("root")) as tree:
        root = tree.supervisor("root")
        await root.start_child(SupervisorSpec("s", [ChildSpec("a", Counter)]))
        left = [weakref.ref(tree.ref(name).cell) for name in ("s", "a")]
        await root.terminate_child("s")
        await root.delete_child("s")
        await eventually(lambda: gc.collect() >= 0 and not any(cell() for cell in left))


async def test_a_child_that_fails_to_start_is_discarded_and_the_supervisor_lives() -> None:
    gate = Gate()
    gate.fail_next(OSError("no"), OSError("no"))
    async with open_tree(SupervisorSpec("root", [ChildSpec("b", Counter)], intensity=0)) as tree:
        root = tree.supervisor("root")
        with pytest.raises(ChildStartFailed, match="no"):
            await root.start_child(ChildSpec("a", lambda: GatedActor(gate)))
        assert await _statuses(tree) == {"b": "running"}
        assert await tree.ref("b").call(GetAll()) == []


async def test_a_child_that_fails_to_restart_by_hand_is_kept() -> None:
    gate = Gate()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))], intensity=0)) as tree:
        root = tree.supervisor("root")
        await root.terminate_child("a")
        gate.fail_next(OSError("no"))
        with pytest.raises(ChildStartFailed, match="no"):
            await root.restart_child("a")
        assert await _statuses(tree) == {"a": "stopped"}
        await root.restart_child("a")
        assert await _statuses(tree) == {"a": "running"}


async def test_a_child_that_the_supervisor_cannot_have_is_refused() -> None:
    async with open_tree(SupervisorSpec("root")) as tree:
        with pytest.raises(SpecError):
            await tree.supervisor("root").start_child(ChildSpec("a", Counter, restart="transient", significant=True))


async def test_an_unknown_supervisor_answers_at_once() -> None:
    async with open_tree(SupervisorSpec("root")) as tree:
        with pytest.raises(SupervisorStopping):
            await tree.supervisor("nobody").count_children()
    with pytest.raises(SupervisorStopping):
        await tree.supervisor("root").start_child(ChildSpec("a", Counter))


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "one_for_all"])
async def test_a_supervisor_in_a_failing_restart_loop_answers_and_can_be_stopped(strategy: str) -> None:
    """``hanging_restart_loop*`` of OTP's suite (OTP-9549)."""
    gate = Gate()
    failing = ChildSpec("a", lambda: GatedActor(gate))
    spec = SupervisorSpec(
        "root",
        [failing, ChildSpec("later", Counter)],
        strategy=strategy,  # type: ignore[arg-type]
        intensity=1_000_000,
        period=1.0,
    )
    async with open_tree(spec) as tree:
        root = tree.supervisor("root")
        gate.fail_always(OSError("still not"))
        tree.inject_fault("a", ValueError("x"))
        await eventually(lambda: gate.starts > 20)
        with pytest.raises(AlreadyPresent):
            await root.start_child(failing)
        with pytest.raises(ChildRestarting):
            await root.restart_child("a")
        with pytest.raises(ChildRestarting):
            await root.delete_child("a")
        assert (await _statuses(tree))["a"] in ("restarting", "starting")
        await root.start_child(ChildSpec("guest", Counter))
        with anyio.fail_after(5):
            await root.terminate_child("a")
        starts = gate.starts
        await settle()
        assert gate.starts == starts, "the pending retry is gone"
        assert (await _statuses(tree))["a"] == "stopped"
        await eventually(lambda: tree.view().children[1].status == "running")


async def test_stopping_a_tree_in_a_failing_restart_loop() -> None:
    gate = Gate()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))], intensity=1_000_000, period=1.0)
    with anyio.fail_after(10):
        async with open_tree(spec) as tree:
            gate.fail_always(OSError("still not"))
            tree.inject_fault("a", ValueError("x"))
            await eventually(lambda: gate.starts > 20)


async def test_a_child_that_is_being_restarted_can_be_terminated_in_the_middle() -> None:
    gate = Gate()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))])) as tree:
        log = EventLog(tree.stream)
        gate.shut()
        tree.inject_fault("a", ValueError("x"))
        await eventually(lambda: gate.starts == 2)
        with anyio.fail_after(5):
            await tree.supervisor("root").terminate_child("a")
        assert await _statuses(tree) == {"a": "stopped"}
        assert log.read(event="exited", actor="a")[-1]["reason"] == "shutdown: terminated on request"
        assert [report["error"] for report in log.topic("crashes")] == ["ValueError"], "what was asked for is no crash"
        gate.open()
        await tree.supervisor("root").restart_child("a")
        assert await _statuses(tree) == {"a": "running"}


async def test_terminating_a_child_that_waits_for_its_backoff_or_cool_down() -> None:
    clock = VirtualClock()
    backoff = Backoff(first=1, factor=1, most=1, jitter=0, reset_after=60)
    spec = SupervisorSpec(
        "root",
        [ChildSpec("a", Counter), ChildSpec("b", Counter, on_give_up=CoolDown(100))],
        backoff=backoff,
        intensity=3,
        period=5,
    )
    async with open_tree(spec, clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await settle()
        assert (await _statuses(tree))["a"] == "restarting"
        await tree.supervisor("root").terminate_child("a")
        await clock.advance(50)
        assert (await _statuses(tree))["a"] == "stopped"


async def test_requests_to_a_stopping_supervisor_fail_at_once_and_lists_are_answered() -> None:
    gate = Gate()
    gate.hold_stop()
    spec = SupervisorSpec("root", [ChildSpec("a", Counter), ChildSpec("b", lambda: GatedActor(gate))])
    async with open_tree(spec) as tree:
        tree.request_shutdown("enough")
        await settle()
        root = tree.supervisor("root")
        for request in (root.terminate_child, root.restart_child, root.delete_child):
            with pytest.raises(SupervisorStopping):
                await request("a")
        assert await _statuses(tree) == {"a": "running", "b": "stopping"}
        assert (await root.count_children()).active == 2
        gate.stop_gate.set()


async def test_requests_that_wait_when_the_stop_begins_fail_then() -> None:
    gate = Gate()
    errors: list[SupervisorError] = []
    spec = SupervisorSpec("root", [ChildSpec("b", lambda: GatedActor(gate))])
    async with open_tree(spec) as tree, anyio.create_task_group() as tasks:
        gate.hold_stop()

        async def ask(spec: ChildSpec) -> None:
            try:
                await tree.supervisor("root").start_child(spec)
            except SupervisorError as error:
                errors.append(error)

        tasks.start_soon(tree.supervisor("root").terminate_child, "b")
        await settle()
        tasks.start_soon(ask, ChildSpec("c", Counter))
        await settle()
        tree.request_shutdown("enough")
        gate.stop_gate.set()
        await tree.wait()
    assert [type(error) for error in errors] == [SupervisorStopping]


async def test_an_actor_that_asks_the_supervisor_that_waits_for_it_is_refused() -> None:
    """tqwewe/kameo#359: in Python it would hang until a limit passes."""
    errors: list[SupervisorError] = []
    trees: list[Tree] = []

    class Asks(Counter):
        async def on_start(self) -> None:
            try:
                await trees[0].supervisor("root").start_child(ChildSpec("x", Counter))
            except SupervisorError as error:
                errors.append(error)

    async with open_tree(SupervisorSpec("root")) as tree:
        trees.append(tree)
        with anyio.fail_after(5):
            await tree.supervisor("root").start_child(SupervisorSpec("deep", [ChildSpec("a", Asks)]))
    assert len(errors) == 1


@pytest.mark.parametrize("where", ["handler", "on_stop", "queued"])
async def test_an_actor_that_asks_the_supervisor_that_ends_it_is_not_left_waiting_till_it_is_killed(where: str) -> None:
    """By asking to be terminated itself, from ``on_stop``, or before the supervisor came to both."""
    errors: list[SupervisorStopping] = []

    class Asking(Counter):
        @on(Hold)
        async def _(self, message: Hold) -> int:
            await self.ask("terminate_child" if where == "handler" else "start_child")
            return 1

        async def on_stop(self, reason: object) -> None:
            if where == "on_stop":
                await self.ask("start_child")

        async def ask(self, what: str) -> None:
            root = tree.supervisor("below")
            try:
                await getattr(root, what)("a" if what == "terminate_child" else ChildSpec("new", Counter))
            except SupervisorStopping as error:
                errors.append(error)

    gate = Gate()
    gate.shut()
    clock = VirtualClock()  # it stands still: nobody is killed for want of time
    below = SupervisorSpec("below", [ChildSpec("a", Asking)])
    async with open_tree(SupervisorSpec("root", [below]), clock=clock) as tree, anyio.create_task_group() as tasks:
        root, held = tree.supervisor("below"), None
        if where == "queued":
            tasks.start_soon(root.start_child, ChildSpec("gated", lambda: GatedActor(gate)))
            await settle()
            tasks.start_soon(root.terminate_child, "a")
            await settle()
        if where != "on_stop":
            held = tree.ref("a").request(Hold(), timeout=60)
            await settle()
        if where == "on_stop":
            tasks.start_soon(root.terminate_child, "a")
        gate.open()
        await settle()
        assert (await _statuses(tree, "below"))["a"] == "stopped"
        assert "waits for the very actor that asks" in str(errors[0])
        assert held is None or await held == 1, "it finished the message in hand"


async def test_the_order_of_children_is_the_order_of_their_start() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter), ChildSpec("b", Counter)])) as tree:
        await tree.supervisor("root").start_child(ChildSpec("c", Counter))
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="a")
        assert list(await _statuses(tree)) == ["a", "b", "c"]
