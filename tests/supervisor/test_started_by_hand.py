"""What becomes of a child that is started on request while the restart of its group waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from supervisor import Backoff, ChildRestarting, ChildSpec, NoSuchChild, SupervisorSpec, Tree, open_tree
from supervisor.testing import EventLog, VirtualClock, settle
from tests.supervisor.helpers import Counter, Put
from tests.supervisor.otp.kit import Naughty, lives, statuses

pytestmark = pytest.mark.anyio
BACKOFF = Backoff(first=4, factor=1, most=4, jitter=0)


@asynccontextmanager
async def _fallen(
    strategy: str, journal: list[str], *more: ChildSpec, **options: str
) -> AsyncIterator[tuple[Tree, VirtualClock]]:
    """A group of a, b, c, of which b has crashed and waits for its backoff."""
    clock = VirtualClock()
    children = [*(ChildSpec(name, lambda: Counter(journal)) for name in "abc"), *more]
    spec = SupervisorSpec("root", children, strategy=strategy, backoff=BACKOFF, period=20)  # type: ignore[arg-type]
    async with open_tree(spec, clock=clock) as tree:
        tree.inject_fault("b", ValueError("x"))
        await settle()
        journal.clear()
        yield tree, clock
        journal.clear()


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_it_falls_and_rises_with_the_group(strategy: str) -> None:
    """As in OTP, whose ``restart/3`` ends whoever of them runs before it starts them all in order."""
    journal: list[str] = []
    async with _fallen(strategy, journal) as (tree, clock):
        root = tree.supervisor("root")
        with pytest.raises(ChildRestarting):
            await root.restart_child("c")
        await root.terminate_child("c")
        await root.restart_child("c")
        await root.start_child(ChildSpec("d", lambda: Counter(journal)))
        assert (await statuses(tree))["c"] == (await statuses(tree))["d"] == "running"
        journal.clear()
        tree.ref("d").cast(Put(1))
        await clock.advance(4)
        first = ["start a"] if strategy == "one_for_all" else []
        assert journal == ["stop d Shutdown", "stop c Shutdown", *first, "start b", "start c", "start d"]
        assert set((await statuses(tree)).values()) == {"running"}
        assert tree.view().children[1].restarts == 1, "counted once, and only for the one that crashed"


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_a_temporary_one_goes_for_good(strategy: str) -> None:
    async with _fallen(strategy, []) as (tree, clock):
        root = tree.supervisor("root")
        await root.start_child(ChildSpec("d", Counter, restart="temporary"))
        await clock.advance(4)
        with pytest.raises(NoSuchChild):
            await root.terminate_child("d")


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one"])
async def test_one_that_does_not_fall_with_it_stays_up(strategy: str) -> None:
    async with _fallen(strategy, []) as (tree, clock):
        root = tree.supervisor("root")
        await root.terminate_child("a")
        await root.restart_child("a")
        await clock.advance(4)
        assert (await lives(tree))["a"] == 2


async def test_one_that_was_stopped_by_hand_meanwhile_stays_down() -> None:
    async with _fallen("rest_for_one", []) as (tree, clock):
        await tree.supervisor("root").terminate_child("c")
        await clock.advance(4)
        assert await statuses(tree) == {"a": "running", "b": "running", "c": "stopped"}


async def test_those_that_wait_for_one_that_is_called_off_start_without_it_and_without_the_stopped() -> None:
    async with _fallen("rest_for_one", [], ChildSpec("d", Counter)) as (tree, clock):
        await tree.supervisor("root").terminate_child("c")
        await tree.supervisor("root").terminate_child("b")
        await settle()
        assert await statuses(tree) == {"a": "running", "b": "stopped", "c": "stopped", "d": "running"}
        assert clock.monotonic() == 0


async def test_one_that_will_not_end_holds_up_the_start_of_the_group() -> None:
    naughty = Naughty()
    async with _fallen("rest_for_one", []) as (tree, clock):
        log = EventLog(tree.stream)
        await tree.supervisor("root").start_child(ChildSpec("d", lambda: naughty, shutdown=1))
        await clock.advance(4 + 1 + 1)
        assert (await statuses(tree))["d"] == "stuck"
        assert log.read(event="started", actor="b") == []
        naughty.let_go.set()
        await settle()
        assert set((await statuses(tree)).values()) == {"running"}
        assert (await lives(tree))["d"] == 2
