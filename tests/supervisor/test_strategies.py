"""Who falls and who rises with whom; and giving up."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from supervisor import (
    Backoff,
    ChildRestarting,
    ChildSpec,
    CoolDown,
    NotRunning,
    Restarting,
    Shutdown,
    SupervisorSpec,
    Tree,
    open_tree,
)
from supervisor.testing import EventLog, Gate, GatedActor, VirtualClock, eventually, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold, Put

pytestmark = pytest.mark.anyio


async def _incarnations(tree: Tree, supervisor: str = "root") -> dict[str, int]:
    return {child.id: child.incarnation for child in await tree.supervisor(supervisor).which_children()}


async def _statuses(tree: Tree, supervisor: str = "root") -> dict[str, str]:
    return {child.id: child.status for child in await tree.supervisor(supervisor).which_children()}


@pytest.mark.parametrize(
    ("strategy", "after"),
    [
        ("one_for_one", {"a": 1, "b": 2, "c": 1}),
        ("one_for_all", {"a": 2, "b": 2, "c": 2}),
        ("rest_for_one", {"a": 1, "b": 2, "c": 2}),
    ],
)
async def test_who_is_restarted_and_in_which_order(strategy: str, after: dict[str, int]) -> None:
    journal: list[str] = []
    children = [ChildSpec(name, lambda: Counter(journal)) for name in "abc"]
    spec = SupervisorSpec("root", children, strategy=strategy)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        journal.clear()
        tree.ref("b").cast(Fail())
        last = max(name for name, number in after.items() if number == 2)
        await log.wait_for(event="started", actor=last)
        assert await _incarnations(tree) == after
        fell = [name for name in "abc" if after[name] == 2]
        stops = [f"stop {name} Shutdown" for name in reversed(fell) if name != "b"]
        assert journal == ["stop b Crash", *stops, *(f"start {name}" for name in fell)]
        journal.clear()


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_temporary_sibling_is_stopped_and_forgotten(strategy: str) -> None:
    children = [ChildSpec("a", Counter), ChildSpec("guest", Counter, restart="temporary"), ChildSpec("b", Counter)]
    async with open_tree(SupervisorSpec("root", children, strategy=strategy)) as tree:  # type: ignore[arg-type]
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="b")
        assert await _incarnations(tree) == {"a": 2, "b": 2}


async def test_casts_to_siblings_that_fall_are_kept() -> None:
    gate = Gate()
    journal: list[str] = []
    children = [ChildSpec("a", lambda: GatedActor(gate)), ChildSpec("b", lambda: Counter(journal))]
    async with open_tree(SupervisorSpec("root", children, strategy="one_for_all")) as tree:
        gate.shut()
        tree.inject_fault("a", ValueError("x"))
        await settle()
        tree.ref("b").cast(Put(1))
        gate.open()
        await eventually(lambda: journal.count("start b") == 2)
        assert await tree.ref("b").call(GetAll()) == [1]


async def test_rest_for_one_goes_on_from_the_child_that_fails_to_start() -> None:
    journal: list[str] = []
    gate = Gate()
    children = [
        ChildSpec("a", lambda: Counter(journal)),
        ChildSpec("b", lambda: Counter(journal)),
        ChildSpec("x", lambda: GatedActor(gate)),
        ChildSpec("c", lambda: Counter(journal)),
    ]
    async with open_tree(SupervisorSpec("root", children, strategy="rest_for_one", intensity=5)) as tree:
        log = EventLog(tree.stream)
        gate.fail_next(OSError("once"), OSError("twice"))
        tree.ref("b").cast(Fail())
        await log.wait_for(event="started", actor="c")
        assert await _incarnations(tree) == {"a": 1, "b": 2, "x": 4, "c": 2}
        assert len(log.read(event="restarting")) == 3, "each attempt counts"


async def test_one_for_all_starts_over_when_a_child_fails_to_start() -> None:
    gate = Gate()
    children = [ChildSpec("a", Counter), ChildSpec("x", lambda: GatedActor(gate)), ChildSpec("b", Counter)]
    async with open_tree(SupervisorSpec("root", children, strategy="one_for_all", intensity=5)) as tree:
        log = EventLog(tree.stream)
        gate.fail_next(OSError("once"))
        tree.ref("b").cast(Fail())
        await log.wait_for(event="started", actor="b")
        assert await _incarnations(tree) == {"a": 3, "x": 3, "b": 2}


async def test_a_restart_that_waited_for_the_end_of_a_sibling_goes_on_with_it() -> None:
    """The sibling was started while the restart waited for its backoff, and takes long to end by itself."""
    clock, gate = VirtualClock(), Gate()
    backoff = Backoff(first=1, factor=1, most=1, jitter=0)
    spec = SupervisorSpec("root", [ChildSpec("a", Counter)], strategy="rest_for_one", period=1000, backoff=backoff)
    async with open_tree(spec, clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await settle()
        late = ChildSpec("b", lambda: GatedActor(gate), restart="transient", shutdown="infinity")
        await tree.supervisor("root").start_child(late)
        gate.hold_stop()
        tree.inject_fault("b", ValueError("x"))
        await clock.advance(2)
        assert await _statuses(tree) == {"a": "restarting", "b": "exited"}
        gate.stop_gate.set()
        await clock.advance(2)
        assert await _statuses(tree) == {"a": "running", "b": "running"}


async def test_a_temporary_child_that_the_boot_has_not_come_to_is_started_with_its_group() -> None:
    clock, gate = VirtualClock(), Gate()
    gate.fail_next(OSError("not yet"))
    first = ChildSpec("a", lambda: GatedActor(gate), on_give_up=CoolDown(1))
    spec = SupervisorSpec("root", [first, ChildSpec("b", Counter, restart="temporary")], strategy="rest_for_one")
    async with open_tree(spec, clock=clock) as tree:
        assert await _statuses(tree) == {"a": "cooling down", "b": "waiting"}
        await clock.advance(1)
        assert await _statuses(tree) == {"a": "running", "b": "running"}


async def test_a_group_restart_counts_once() -> None:
    children = [ChildSpec(name, Counter) for name in "abcd"]
    spec = SupervisorSpec("root", children, strategy="one_for_all", intensity=2, period=60)
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        for count in (1, 2):
            tree.ref("a").cast(Fail())
            await log.wait_for(event="started", actor="d", count=count)
        tree.ref("a").cast(Fail())
        report = await tree.wait()
        assert report.exit_code == 1


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("intensity", [0, 1, 3])
async def test_one_restart_more_than_allowed_ends_the_supervisor(strategy: str, intensity: int) -> None:
    journal: list[str] = []
    children = [ChildSpec(name, lambda: Counter(journal)) for name in "ab"]
    spec = SupervisorSpec("root", children, strategy=strategy, intensity=intensity, period=3600)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        for count in range(1, intensity + 1):
            tree.ref("a").cast(Fail())
            await log.wait_for(event="started", actor="a", incarnation=count + 1)
            await settle()
        journal.clear()
        tree.ref("a").cast(Fail())
        report = await tree.wait()
        assert isinstance(report.reason, Shutdown)
        assert "reached maximum restart intensity: a" in report.reason.detail
        assert report.exit_code == 1
        assert journal == ["stop a Crash", "stop b Shutdown"]
        assert log.read(event="gave_up", actor="a")


async def test_escalation_restarts_a_permanent_supervisor_with_all_below_and_counts_above() -> None:
    inner = SupervisorSpec("inner", [ChildSpec("a", Counter), ChildSpec("b", Counter)], intensity=0)
    spec = SupervisorSpec("root", [ChildSpec("before", Counter), inner, ChildSpec("after", Counter)], intensity=1)
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="inner", incarnation=2)
        assert await _incarnations(tree) == {"before": 1, "inner": 2, "after": 1}
        assert await _incarnations(tree, "inner") == {"a": 2, "b": 2}
        tree.ref("b").cast(Fail())
        assert (await tree.wait()).exit_code == 1


async def test_a_restart_of_the_supervisor_is_a_restart_to_those_who_call_and_cast() -> None:
    """Casts to its children are kept, as over a restart of their own."""
    clock, gate = VirtualClock(), Gate()
    inner = SupervisorSpec("inner", [ChildSpec("a", Counter), ChildSpec("b", lambda: GatedActor(gate))], intensity=0)
    spec = SupervisorSpec("root", [inner], intensity=0, on_give_up=CoolDown(1))
    async with open_tree(spec, clock=clock) as tree:
        held = tree.ref("a").request(Hold(), timeout=60)
        await settle()
        tree.ref("a").cast(Put(1))
        tree.inject_fault("b", ValueError("x"))
        await clock.advance(5)  # the limit of the handler that holds
        with pytest.raises(Restarting):
            await held
        assert tree.view().children[0].status == "cooling down"
        tree.ref("a").cast(Put(2))
        with pytest.raises(Restarting):
            await tree.ref("a").call(GetAll())
        await clock.advance(1)
        await settle()
        assert await tree.ref("a").call(GetAll()) == [1, 2]
        assert tree.dead_letters == {}


async def test_casts_to_those_below_a_supervisor_that_does_not_come_back_die() -> None:
    clock = VirtualClock()
    inner = SupervisorSpec("inner", [ChildSpec("a", Counter), ChildSpec("b", Counter)], intensity=0)
    async with open_tree(SupervisorSpec("root", [inner], on_give_up=CoolDown(1), intensity=0), clock=clock) as tree:
        tree.ref("b").cast(Fail())
        await settle()
        tree.ref("a").cast(Put(1))
        await tree.supervisor("root").terminate_child("inner")
        assert tree.dead_letters == {"not running": 1}
        with pytest.raises(NotRunning):
            await tree.ref("a").call(GetAll())


@pytest.mark.parametrize("restart", ["transient", "temporary"])
async def test_a_supervisor_that_gave_up_ended_cleanly_for_its_parent(restart: str) -> None:
    inner = SupervisorSpec("inner", [ChildSpec("a", Counter)], intensity=0, restart=restart)  # type: ignore[arg-type]
    async with open_tree(SupervisorSpec("root", [inner, ChildSpec("b", Counter)])) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await log.wait_for(event="exited", actor="inner")
        await settle()
        assert (await _statuses(tree)).get("inner") == ("stopped" if restart == "transient" else None)
        assert tree.view().children[-1].status == "running"


async def test_dynamic_children_are_not_made_again_when_their_supervisor_is() -> None:
    inner = SupervisorSpec("inner", [ChildSpec("a", Counter)], intensity=0)
    async with open_tree(SupervisorSpec("root", [inner])) as tree:
        log = EventLog(tree.stream)
        await tree.supervisor("inner").start_child(ChildSpec("guest", Counter))
        tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="inner", incarnation=2)
        assert await _incarnations(tree, "inner") == {"a": 2}
        await tree.supervisor("inner").start_child(ChildSpec("guest", Counter))
        assert await tree.ref("guest").call(GetAll()) == []


async def _linger() -> None:
    """Take some turns of the event loop, in which somebody who should wait could begin."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_the_old_incarnation_has_fully_ended_before_the_new_one_starts() -> None:
    """tqwewe/kameo#387: spawned tasks, timers and on_stop included."""
    alive: list[str] = []
    overlaps: list[list[str]] = []

    class Exclusive(Counter):
        async def on_start(self) -> None:
            if alive:
                overlaps.append(list(alive))
            alive.append("actor")
            self.context.spawn(self._beside)
            await _linger()

        async def on_stop(self, reason: object) -> None:
            await _linger()
            alive.remove("actor")

        async def _beside(self) -> None:
            alive.append("beside")
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await _linger()
                alive.remove("beside")

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Exclusive)], intensity=10)) as tree:
        log = EventLog(tree.stream)
        for count in range(1, 6):
            tree.ref("a").cast(Fail())
            await log.wait_for(event="started", actor="a", count=count)
        assert overlaps == []
    assert alive == []


async def test_many_children_crash_at_once_under_one_for_all() -> None:
    children = [ChildSpec(str(number), Counter) for number in range(5)]
    spec = SupervisorSpec("root", children, strategy="one_for_all", intensity=100)
    async with open_tree(spec) as tree:
        for number in range(5):
            tree.ref(str(number)).cast(Fail())
        await eventually(lambda: all(child.status == "running" for child in tree.view().children))
        await settle()
        assert set((await _statuses(tree)).values()) == {"running"}


# ---------------------------------------------------------------- two restarts pending in one group


async def test_rest_for_one_a_child_waits_for_the_nearest_pending_sibling_before_it() -> None:
    """``a`` is given up on request while ``b`` waits for its backoff: what follows ``b`` goes on waiting."""
    clock = VirtualClock()
    backoff = Backoff(first=1, factor=1, most=1, jitter=0, reset_after=60)
    children = [ChildSpec(name, Counter) for name in "abc"]
    spec = SupervisorSpec("root", children, strategy="rest_for_one", backoff=backoff, intensity=10, period=60)
    async with open_tree(spec, clock=clock) as tree:
        root = tree.supervisor("root")
        tree.ref("a").cast(Fail())
        await settle()
        await root.terminate_child("b")
        await root.restart_child("b")
        await clock.advance(0.5)
        tree.ref("b").cast(Fail())
        await settle()
        log = EventLog(tree.stream)
        await root.terminate_child("a")
        await settle()
        assert [child.status for child in tree.view().children] == ["stopped", "restarting", "waiting"]
        await clock.advance(1)
        assert [child.status for child in tree.view().children] == ["stopped", "running", "running"]
        assert [event["actor"] for event in log.read(event="started")] == ["b", "c"]


async def test_rest_for_one_a_child_goes_on_waiting_for_the_pending_sibling_before_the_one_given_up() -> None:
    clock = VirtualClock()
    children = [ChildSpec("a", Counter, on_give_up=CoolDown(100)), *(ChildSpec(name, Counter) for name in "bc")]
    backoff = Backoff(first=1, factor=1, most=1, jitter=0, reset_after=60)
    spec = SupervisorSpec("root", children, strategy="rest_for_one", intensity=1, period=60, backoff=backoff)
    async with open_tree(spec, clock=clock) as tree:
        root = tree.supervisor("root")
        for _ in range(2):
            tree.ref("a").cast(Fail())
            await clock.advance(1)
        await root.terminate_child("b")
        await root.restart_child("b")
        tree.ref("b").cast(Fail())
        await settle()
        await root.terminate_child("b")
        await clock.advance(10)
        assert [child.status for child in tree.view().children] == ["cooling down", "stopped", "waiting"]
        await clock.advance(100)
        assert [child.status for child in tree.view().children] == ["running", "stopped", "running"]


async def test_rest_for_one_a_child_that_waited_for_two_is_started_once() -> None:
    """The end of ``b`` and the request that gives ``a`` up come to the supervisor while it is busy."""
    gate = Gate()
    children = [ChildSpec("a", Counter, on_give_up=CoolDown(100)), *(ChildSpec(name, Counter) for name in "bc")]
    spec = SupervisorSpec("root", children, strategy="rest_for_one", intensity=1)
    async with open_tree(spec, clock=VirtualClock()) as tree, anyio.create_task_group() as tasks:
        root = tree.supervisor("root")
        for _ in range(2):
            tree.ref("a").cast(Fail())
            await settle()
        assert [child.status for child in tree.view().children] == ["cooling down", "waiting", "waiting"]
        await root.terminate_child("b")
        await root.restart_child("b")
        gate.shut()
        tasks.start_soon(root.start_child, ChildSpec("busy", lambda: GatedActor(gate)))
        await settle()
        tree.ref("b").cast(Fail())
        await settle()
        tasks.start_soon(root.terminate_child, "a")
        await settle()
        log = EventLog(tree.stream)
        gate.open()
        await settle()
        started = [event["actor"] for event in log.read(event="started")]
        assert [name for name in started if name != "busy"] == ["b", "c"]
        assert tree.ref("c").cell.incarnation == 3


async def test_a_child_whose_group_is_held_up_by_a_sibling_before_it_was_not_renewed() -> None:
    gate = Gate()
    children = [ChildSpec("a", lambda: GatedActor(gate)), ChildSpec("b", Counter)]
    backoff = Backoff(first=1, factor=1, most=1, jitter=0)
    spec = SupervisorSpec("root", children, strategy="one_for_all", backoff=backoff)
    async with open_tree(spec, clock=VirtualClock()) as tree:
        gate.fail_next(OSError("no"))
        with pytest.raises(ChildRestarting):
            await tree.supervisor("root").renew_child("b")
        assert await _statuses(tree) == {"a": "restarting", "b": "waiting"}
