"""Intensity window, backoff, cool-down."""

from __future__ import annotations

import random

import pytest

from supervisor import Backoff, ChildSpec, CoolDown, Escalate, SpecError, SupervisorSpec, Tree, open_tree
from supervisor.intensity import Intensity
from supervisor.testing import EventLog, Gate, GatedActor, VirtualClock, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Put

pytestmark = pytest.mark.anyio


def _status(tree: Tree, name: str) -> str:
    return next(child.status for child in tree.view().children if child.id == name)


def test_the_window_slides_and_its_edge_is_inclusive() -> None:
    window = Intensity(2, 5.0)
    assert window.add(0.0)
    assert window.add(3.0)
    assert not window.add(5.0), "one that is exactly a period old still counts"
    window = Intensity(2, 5.0)
    assert [window.add(at) for at in (0.0, 3.0, 5.001, 8.0)] == [True, True, True, False]
    assert not Intensity(0, 5.0).add(0.0)


async def test_the_window_is_one_for_all_children_and_follows_the_clock() -> None:
    clock = VirtualClock()
    spec = SupervisorSpec("root", [ChildSpec("a", Counter), ChildSpec("b", Counter)], intensity=2, period=10)
    async with open_tree(spec, clock=clock) as tree:
        for name in ("a", "b", "a", "b", "a"):
            tree.ref(name).cast(Fail())
            await clock.advance(5.01)
        assert _status(tree, "a") == "running"
        tree.ref("a").cast(Fail())
        await settle()
        tree.ref("b").cast(Fail())
        await settle()
        assert (await tree.wait()).exit_code == 1


def test_backoff_grows_to_its_most_and_jitters_upwards_only() -> None:
    backoff = Backoff(first=1, factor=2, most=10, jitter=0.5, reset_after=60)
    chance = random.Random(1)
    for attempt, base in enumerate([1, 2, 4, 8, 10, 10]):
        delays = [backoff.delay(attempt, chance) for _ in range(200)]
        assert base <= min(delays)
        assert max(delays) <= base * 1.5
        assert max(delays) > base * 1.3, "there is jitter"
    assert backoff.delay(100_000, chance) <= 15
    for factor in (1.0, 1.5, 2.0, 3.0):  # no power of them is too large
        steady = Backoff(first=1.0, factor=factor, most=10.0, jitter=0)
        assert steady.delay(1_000_000, chance) == (1 if factor == 1 else 10)
    assert Backoff(jitter=1).jitter == 1


async def test_restarts_wait_for_the_backoff_which_resets_after_a_stable_spell() -> None:
    clock = VirtualClock()
    backoff = Backoff(first=1, factor=3, most=9, jitter=0, reset_after=60)
    spec = SupervisorSpec("root", [ChildSpec("a", Counter), ChildSpec("b", Counter)], backoff=backoff, period=20)
    async with open_tree(spec, clock=clock) as tree:
        log = EventLog(tree.stream)
        for delay in (1, 3, 9):
            tree.ref("a").cast(Fail())
            tree.ref("a").cast(Put(delay))
            await clock.advance(delay - 0.01)
            assert _status(tree, "a") == "restarting"
            assert await tree.ref("b").call(GetAll()) == [], "the others go on"
            await clock.advance(0.02)
            assert await tree.ref("a").call(GetAll()) == [delay], "what was cast meanwhile is there"
        await clock.advance(59)
        tree.ref("a").cast(Fail())
        await clock.advance(8.9)
        assert _status(tree, "a") == "restarting", "59 s are no stable spell"
        await clock.advance(61)
        tree.ref("a").cast(Fail())
        await clock.advance(1.01)
        assert _status(tree, "a") == "running"
        assert [entry["delay"] for entry in log.read(event="restarting")] == [1, 3, 9, 9, 1]


async def test_a_stop_during_the_backoff_is_immediate() -> None:
    clock = VirtualClock()
    backoff = Backoff(first=1, factor=1, most=1, jitter=0, reset_after=60)
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)], backoff=backoff), clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await settle()
    assert clock.monotonic() == 0


async def test_boot_knows_no_backoff_and_no_intensity() -> None:
    gate = Gate()
    gate.fail_next(OSError("x"))
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))], backoff=Backoff(first=0.1), intensity=3)
    with pytest.raises(Exception, match="a: x"):
        async with open_tree(spec):
            pass
    assert gate.starts == 1


def test_a_backoff_that_makes_the_limit_unreachable_is_refused() -> None:
    with pytest.raises(SpecError, match="never give up"):
        SupervisorSpec("root", backoff=Backoff(first=2, factor=2, most=60, jitter=0), intensity=3, period=5)
    SupervisorSpec("root", backoff=Backoff(first=2, factor=2, most=60, jitter=0), intensity=3, period=14)
    with pytest.raises(SpecError, match="never give up"):
        SupervisorSpec("root", backoff=Backoff(first=2, factor=2, most=60, jitter=0.01), intensity=3, period=14)
    SupervisorSpec("root", backoff=Backoff(first=50, factor=1, most=60), intensity=0, period=1)


async def test_cooling_down_instead_of_giving_up_and_again_for_ever() -> None:
    clock, gate = VirtualClock(), Gate()
    children = [ChildSpec("a", lambda: GatedActor(gate)), ChildSpec("b", Counter)]
    spec = SupervisorSpec("root", children, intensity=2, period=60, on_give_up=CoolDown(30))
    async with open_tree(spec, clock=clock) as tree:
        log = EventLog(tree.stream)
        gate.fail_always(OSError("no driver"))
        tree.inject_fault("a", ValueError("x"))
        await settle()
        assert _status(tree, "a") == "cooling down"
        assert gate.starts == 3, "the first, and as many as the intensity allows"
        for round in range(1, 4):
            await clock.advance(29.5)
            assert gate.starts == 3 * round
            assert await tree.ref("b").call(GetAll()) == []
            await clock.advance(0.5)
            assert gate.starts == 3 * round + 3, "a full budget after each cool-down"
        gate.fail_always(None)
        await clock.advance(30)
        assert _status(tree, "a") == "running"
        assert len(log.read(event="cooling_down")) == 4


async def test_after_a_cool_down_the_backoff_begins_anew_so_the_limit_is_reached_again() -> None:
    clock, gate = VirtualClock(), Gate()
    backoff = Backoff(first=1, factor=2, most=100, jitter=0, reset_after=60)
    children = [ChildSpec("a", lambda: GatedActor(gate))]
    spec = SupervisorSpec("root", children, intensity=2, period=3, backoff=backoff, on_give_up=CoolDown(30))
    async with open_tree(spec, clock=clock) as tree:
        log = EventLog(tree.stream)
        gate.fail_always(OSError("no driver"))
        tree.inject_fault("a", ValueError("x"))
        for _ in range(3):
            await clock.advance(3)
            assert _status(tree, "a") == "cooling down"
            await clock.advance(30)
        assert [entry["delay"] for entry in log.read(event="restarting")] == [1, 2] * 3 + [1]


async def test_a_child_that_fails_at_boot_cools_down_and_its_supervisor_counts_as_started() -> None:
    clock, gate = VirtualClock(), Gate()
    gate.fail_next(OSError("no model"))
    inner = SupervisorSpec(
        "inner", [ChildSpec("a", lambda: GatedActor(gate)), ChildSpec("b", Counter)], on_give_up=CoolDown(30)
    )
    async with open_tree(SupervisorSpec("root", [inner, ChildSpec("c", Counter)]), clock=clock) as tree:
        statuses = {child.id: child.status for child in await tree.supervisor("inner").which_children()}
        assert statuses == {"a": "cooling down", "b": "running"}
        assert gate.starts == 1, "a failed boot is not retried at once"
        tree.ref("a").cast(Put(1))
        await clock.advance(30)
        assert gate.starts == 2
        assert await tree.ref("c").call(GetAll()) == []


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_a_group_cools_down_together_also_at_boot(strategy: str) -> None:
    clock, gate = VirtualClock(), Gate()
    gate.fail_next(OSError("no"))
    children = [ChildSpec("before", Counter), ChildSpec("a", lambda: GatedActor(gate)), ChildSpec("b", Counter)]
    spec = SupervisorSpec(
        "root",
        children,
        strategy=strategy,  # type: ignore[arg-type]
        on_give_up=CoolDown(30),
    )
    async with open_tree(spec, clock=clock) as tree:
        before = "waiting" if strategy == "one_for_all" else "running"
        assert [child.status for child in tree.view().children] == [before, "cooling down", "waiting"]
        await clock.advance(30)
        assert [child.status for child in tree.view().children] == ["running"] * 3


async def test_the_policy_of_a_child_goes_before_that_of_its_supervisor() -> None:
    clock = VirtualClock()
    children = [ChildSpec("a", Counter, on_give_up=CoolDown(30)), ChildSpec("b", Counter)]
    async with open_tree(SupervisorSpec("root", children, intensity=0), clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await settle()
        assert _status(tree, "a") == "cooling down"
        tree.ref("b").cast(Fail())
        assert (await tree.wait()).exit_code == 1
    children = [ChildSpec("a", Counter, on_give_up=Escalate())]
    async with open_tree(SupervisorSpec("root", children, intensity=0, on_give_up=CoolDown(30)), clock=clock) as tree:
        tree.ref("a").cast(Fail())
        assert (await tree.wait()).exit_code == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"first": 0},
        {"first": float("nan")},
        {"factor": 0.5},
        {"jitter": 2},
        {"jitter": -0.1},
        {"first": 5, "most": 1},
        {"reset_after": 0},
        {"most": float("inf")},
    ],
)
def test_a_senseless_backoff_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SpecError):
        Backoff(**bad)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_senseless_cool_down_is_refused(seconds: float) -> None:
    with pytest.raises(SpecError):
        CoolDown(seconds)
