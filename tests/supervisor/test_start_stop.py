"""Ordered start with ack and limit, reverse ordered stop with per-child limits, and the ways a boot fails."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from supervisor import (
    Actor,
    BootRefused,
    ChildSpec,
    Normal,
    Reason,
    Shutdown,
    StopIncomplete,
    SupervisorSpec,
    TreeStartFailed,
    open_tree,
)
from supervisor.testing import EventLog, Gate, GatedActor, VirtualClock, eventually, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold, Put

pytestmark = pytest.mark.anyio


def _family(journal: list[str], *names: str) -> list[ChildSpec]:
    return [ChildSpec(name, lambda: Counter(journal)) for name in names]


async def test_children_start_in_order_and_stop_in_reverse_through_all_levels() -> None:
    journal: list[str] = []
    spec = SupervisorSpec(
        "root",
        [*_family(journal, "a", "b"), SupervisorSpec("inner", _family(journal, "c", "d")), *_family(journal, "e")],
    )
    async with open_tree(spec):
        assert journal == [f"start {name}" for name in "abcde"]
        journal.clear()
    assert journal == [f"stop {name} Shutdown" for name in "edcba"]


async def test_a_start_waits_for_the_ack_of_the_one_before() -> None:
    first, second = Gate(), Gate()
    first.shut()
    spec = SupervisorSpec(
        "root", [ChildSpec("a", lambda: GatedActor(first)), ChildSpec("b", lambda: GatedActor(second))]
    )
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            async with open_tree(spec):
                assert second.starts == 1

        tasks.start_soon(run)
        await settle()
        assert (first.starts, second.starts) == (1, 0)
        first.open()


async def test_a_failing_boot_stops_what_has_started_and_is_not_retried() -> None:
    journal: list[str] = []
    gate = Gate()
    gate.fail_next(OSError("no such device"))
    spec = SupervisorSpec(
        "root",
        [*_family(journal, "a", "b"), ChildSpec("bad", lambda: GatedActor(gate)), *_family(journal, "late")],
    )
    with pytest.raises(TreeStartFailed, match="bad: no such device"):
        async with open_tree(spec):
            pytest.fail("the block must not be entered")
    assert gate.starts == 1
    assert gate.stops == [], "on_stop is for actors that had started"
    assert journal == ["start a", "start b", "stop b Shutdown", "stop a Shutdown"]


async def test_a_refused_boot_is_told_as_it_was_said_from_any_depth() -> None:
    class Locked(Actor):
        async def on_start(self) -> None:
            raise BootRefused("Another daemon is running (PID 7)", 1)

    spec = SupervisorSpec("root", [SupervisorSpec("inner", [ChildSpec("lock", Locked)])])
    with pytest.raises(BootRefused) as caught:
        async with open_tree(spec):
            pytest.fail("the block must not be entered")
    assert (caught.value.message, caught.value.exit_code) == ("Another daemon is running (PID 7)", 1)


async def test_a_refused_boot_of_a_child_that_cools_down_refuses_nothing() -> None:
    from supervisor import CoolDown

    class Locked(Actor):
        async def on_start(self) -> None:
            raise BootRefused("busy", 1)

    spec = SupervisorSpec("root", [ChildSpec("lock", Locked, on_give_up=CoolDown(60))])
    async with open_tree(spec) as tree:
        assert tree.view().children[0].status == "cooling down"


async def test_a_start_past_its_limit_fails_and_is_cancelled_first() -> None:
    gate, clock = Gate(), VirtualClock()
    gate.shut()
    spec = SupervisorSpec("root", [ChildSpec("slow", lambda: GatedActor(gate), start_timeout=3)])
    errors: list[TreeStartFailed] = []
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            try:
                async with open_tree(spec, clock=clock):
                    pytest.fail("the block must not be entered")
            except TreeStartFailed as error:
                errors.append(error)

        tasks.start_soon(run)
        await settle()
        await clock.advance(2.9)
        assert errors == []
        await clock.advance(0.2)
    assert "no ack within 3 s" in str(errors[0])


async def test_a_factory_that_raises_or_returns_no_actor_is_a_failed_start() -> None:
    def broken() -> Actor:
        raise ImportError("no module named nothing")

    with pytest.raises(TreeStartFailed, match="no module named nothing"):
        async with open_tree(SupervisorSpec("root", [ChildSpec("a", broken)])):
            pass
    with pytest.raises(TreeStartFailed, match="no Actor"):
        async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: "x")])):  # type: ignore[arg-type, return-value]
            pass


async def test_a_cancelled_boot_stops_what_has_started() -> None:
    journal: list[str] = []
    gate = Gate()
    gate.shut()
    spec = SupervisorSpec("root", [*_family(journal, "a"), ChildSpec("slow", lambda: GatedActor(gate))])
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            async with open_tree(spec):
                pytest.fail("the block must not be entered")

        tasks.start_soon(run)
        await settle()
        tasks.cancel_scope.cancel()
    assert journal == ["start a", "stop a Shutdown"]
    assert gate.starts == 1


async def test_a_stop_during_the_boot_ends_it() -> None:
    from supervisor import on

    class Impatient(Actor):
        async def on_start(self) -> None:
            self.context.request_shutdown("changed my mind", 4)

        @on(GetAll)
        async def _(self, message: GetAll) -> list[int]:
            return []

    gate = Gate()
    gate.shut()
    spec = SupervisorSpec("root", [ChildSpec("a", Impatient), ChildSpec("slow", lambda: GatedActor(gate))])
    async with open_tree(spec) as tree:
        report = await tree.wait()
    assert (report.exit_code, report.reason) == (4, Shutdown("changed my mind"))


async def test_the_message_in_hand_is_finished_within_the_limit() -> None:
    actor = Counter()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: actor)])) as tree:
        held = tree.ref("a").request(Hold(), timeout=60)
        await settle()
        tree.ref("a").cast(Put(1))
        tree.request_shutdown("enough")
        await settle()
        actor.hold.set()
        assert await held == 1
        await tree.wait()
        assert actor.values == [], "what is queued behind the stop is not handled"
    assert actor.journal == ["start a", "stop a Shutdown"]


async def test_past_its_limit_a_child_is_cancelled_and_its_successor_in_order_waits_for_that() -> None:
    journal: list[str] = []
    clock = VirtualClock()

    class Stubborn(Counter):
        async def on_stop(self, reason: Reason) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.journal.append("cancelled")

    spec = SupervisorSpec("root", [*_family(journal, "a"), ChildSpec("b", lambda: Stubborn(journal), shutdown=4)])
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            async with open_tree(spec, clock=clock) as tree:
                log.append(EventLog(tree.stream))
                tree.request_shutdown("enough")
                await tree.wait()

        log: list[EventLog] = []
        tasks.start_soon(run)
        await settle()
        await clock.advance(3.9)
        assert journal == ["start a", "start b"]
        await clock.advance(0.2)
    assert journal == ["start a", "start b", "cancelled", "stop a Shutdown"]
    assert log[0].read(event="exited", actor="b")[0]["reason"] == "killed"


async def test_a_shorter_deadline_takes_hold_in_the_middle_of_a_stop() -> None:
    clock, gate, other = VirtualClock(), Gate(), Gate()
    gate.hold_stop()
    other.hold_stop()
    spec = SupervisorSpec(
        "root",
        [
            ChildSpec("a", lambda: GatedActor(other), shutdown=1000),
            SupervisorSpec("inner", [ChildSpec("b", lambda: GatedActor(gate), shutdown="infinity")]),
        ],
    )
    async with anyio.create_task_group() as tasks:
        done = anyio.Event()

        async def run() -> None:
            async with open_tree(spec, clock=clock) as tree:
                trees.append(tree)
                await tree.wait()
            done.set()

        trees: list[object] = []
        tasks.start_soon(run)
        await settle()
        (tree,) = trees
        tree.request_shutdown("enough")  # type: ignore[attr-defined]
        await clock.advance(500)
        assert not done.is_set()
        tree.shorten_deadline(2)  # type: ignore[attr-defined]
        tree.shorten_deadline(50)  # type: ignore[attr-defined]
        await clock.advance(1.9)
        assert not done.is_set()
        await clock.advance(0.2)
        assert done.is_set(), "the limit holds for the whole tree, not for each child anew"
    assert [len(gate.stops), len(other.stops)] == [1, 0], "after the deadline nobody is asked any more"


async def test_a_child_that_ends_by_itself_during_the_stop_harms_nothing() -> None:
    journal: list[str] = []

    class Racer(Counter):
        async def on_stop(self, reason: Reason) -> None:
            journal.append("racer")
            raise ValueError("not now")

    children = [*_family(journal, "a"), ChildSpec("b", Racer), *_family(journal, "c")]
    async with open_tree(SupervisorSpec("root", children)) as tree:
        log = EventLog(tree.stream)
    assert journal == ["start a", "start c", "stop c Shutdown", "racer", "stop a Shutdown"]
    assert "not now" in log.read(event="exited", actor="b")[0]["reason"]


async def test_leaving_the_block_by_an_error_stops_the_tree_and_keeps_the_error() -> None:
    journal: list[str] = []
    with pytest.raises(KeyError, match="mine"):
        async with open_tree(SupervisorSpec("root", _family(journal, "a"))):
            raise KeyError("mine")
    assert journal == ["start a", "stop a Shutdown"]


async def test_cancelling_the_block_stops_the_tree_in_order() -> None:
    journal: list[str] = []
    with anyio.CancelScope() as scope:
        async with open_tree(SupervisorSpec("root", _family(journal, "a", "b"))):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert journal == ["start a", "start b", "stop b Shutdown", "stop a Shutdown"]


async def test_the_exit_report_carries_what_was_asked_for() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)])) as tree:
        tree.request_shutdown("first", 3)
        tree.request_shutdown("second", 4)
        report = await tree.wait()
        assert (report.reason, report.exit_code) == (Shutdown("first"), 3)
        assert (await tree.wait()) == report


async def test_a_request_to_stop_does_not_hide_that_the_tree_had_given_up() -> None:
    """It comes while the children are being stopped; a restart on failure is what the host of the tree is told."""
    gate = Gate()
    spec = SupervisorSpec("root", [ChildSpec("slow", lambda: GatedActor(gate)), ChildSpec("a", Counter)], intensity=0)
    async with open_tree(spec) as tree:
        gate.hold_stop()
        tree.ref("a").cast(Fail())
        await settle()
        tree.request_shutdown("enough")
        gate.stop_gate.set()
        report = await tree.wait()
        tree.request_shutdown("enough", 5)
        assert report.exit_code == 1
        assert await tree.wait() == report


async def test_an_empty_tree_is_a_tree() -> None:
    async with open_tree(SupervisorSpec("root")) as tree:
        assert tree.view().children == []
        assert isinstance(Normal(), Normal)


async def test_two_trees_in_one_program_do_not_know_each_other() -> None:
    spec = SupervisorSpec("root", [ChildSpec("a", Counter)])
    async with open_tree(spec, name="one") as first, open_tree(spec, name="two") as second:
        first.ref("a").cast(Put(1))
        assert await first.ref("a").call(GetAll()) == [1]
        assert await second.ref("a").call(GetAll()) == []


def test_a_stuck_report_names_and_shows_each() -> None:
    from supervisor import Stuck

    error = StopIncomplete([Stuck("a", "stack of a"), Stuck("b", "stack of b")])
    assert "a, b" in str(error)
    assert "stack of b" in str(error)


async def test_a_child_that_acks_and_ends_at_once_has_started() -> None:
    class Brief(Counter):
        async def on_start(self) -> None:
            if self.context.incarnation == 1:
                self.context.spawn(self._fail)

        async def _fail(self) -> None:
            raise ValueError("right away")

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Brief), ChildSpec("b", Counter)])) as tree:
        await eventually(lambda: tree.view().children[0].restarts == 1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_again_while_it_leaves_the_tree_leaves_nobody_behind() -> None:
    """Only asyncio lets anybody do that: no scope of anyio keeps ``Task.cancel`` out."""
    gate = Gate()
    gate.hold_stop()
    entered = anyio.Event()

    async def program() -> None:
        async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))])):
            entered.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(program())
    await entered.wait()
    for _ in range(3):
        task.cancel()
        await settle()
    assert not task.done(), "it waits for the tree"
    gate.stop_gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(gate.stops) == 1
