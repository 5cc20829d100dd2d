"""Dynamic children: as many as one likes, with ids given or made, and all ended at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import pytest

from supervisor import (
    Actor,
    Backoff,
    ChildSpec,
    NotRunning,
    Reason,
    SupervisorSpec,
    SupervisorStopping,
    TooManyChildren,
    Tree,
    dynamic_supervisor,
    open_tree,
)
from supervisor.testing import EventLog, Gate, VirtualClock, settle
from tests.supervisor.helpers import Counter, GetAll, Put, StopYourself
from tests.supervisor.model.playing import QuickClock
from tests.supervisor.otp.kit import Naughty, Sleeper, ends, gated, statuses

pytestmark = pytest.mark.anyio


def _sleeper(seconds: float) -> Callable[[], Actor]:
    return lambda: Sleeper(seconds)


class _Waiting(Actor):
    """Takes as long to stop as the event takes."""

    def __init__(self, event: anyio.Event) -> None:
        self.event = event

    async def on_stop(self, reason: Reason) -> None:
        await self.event.wait()


async def test_ten_thousand_children_end_in_the_time_of_the_slowest() -> None:
    """They end at many different times, each of which wakes the supervisor: nothing is quadratic in that."""
    clock, events = QuickClock(), [anyio.Event() for _ in range(500)]
    async with open_tree(SupervisorSpec("root", [dynamic_supervisor("pool")]), clock=clock) as tree:
        for number in range(10_000):
            spec = ChildSpec(f"w{number}", lambda number=number: _Waiting(events[number % 500]), restart="temporary")  # type: ignore[misc]
            await tree.supervisor("pool").start_child(spec)
        for number, event in enumerate(events):
            clock.call_later(number / 125, event.set)
        tree.request_shutdown("enough")
        begun = time.monotonic()
        await clock.advance(499 / 125)
        assert (await tree.wait()).exit_code == 0
        assert clock.monotonic() == 499 / 125
        assert time.monotonic() - begun < 30


async def test_each_of_them_has_its_own_limit_and_a_stuck_one_holds_up_nobody() -> None:
    clock, naughty = VirtualClock(), Naughty()
    spec = SupervisorSpec("root", [ChildSpec("before", Actor), dynamic_supervisor("pool")])
    async with open_tree(spec, clock=clock) as tree:
        log, pool = EventLog(tree.stream), tree.supervisor("pool")
        await pool.start_child(ChildSpec("naughty", lambda: naughty, shutdown=1))
        await pool.start_child(ChildSpec("slow", _sleeper(4), shutdown=2))
        await pool.start_child(ChildSpec("fair", _sleeper(4), shutdown="infinity"))
        await pool.start_child(ChildSpec("quick", Actor))
        tree.request_shutdown("enough")
        await settle()
        assert [ends(log, name) for name in ("quick", "fair", "slow")] == [["shutdown: enough"], [], []]
        assert [one.id for one in await pool.which_children()] == ["naughty", "slow", "fair"]
        await clock.advance(2)
        assert ends(log, "slow") == ["killed"]
        assert [one.id for one in await pool.which_children()] == ["fair"], "the stuck one is waited for no more"
        assert ends(log, "before") == [], "it stops after the pool"
        await clock.advance(2)
        await tree.wait()
        assert ends(log, "fair") == ends(log, "before") == ["shutdown: enough"]
        assert log.read(event="stuck", actor="naughty") != []
        naughty.let_go.set()
        await settle()


async def test_a_shorter_deadline_reaches_all_of_them() -> None:
    clock = VirtualClock()
    async with open_tree(dynamic_supervisor("root"), clock=clock) as tree:
        log = EventLog(tree.stream)
        for name in "abc":
            await tree.supervisor("root").start_child(ChildSpec(name, _sleeper(100), shutdown="infinity"))
        tree.request_shutdown("enough")
        await clock.advance(1)
        tree.shorten_deadline(2)
        await clock.advance(1.9)
        assert log.read(event="exited") == []
        await clock.advance(0.1)
        await tree.wait()
        assert [ends(log, name) for name in "abc"] == [["killed"]] * 3


async def test_those_that_wait_or_end_by_themselves_neither_stall_nor_break_the_stop() -> None:
    clock, gate = VirtualClock(), Gate()
    backoff = Backoff(first=1, factor=1, most=1, jitter=0)
    async with open_tree(dynamic_supervisor("root", backoff=backoff), clock=clock) as tree:
        root = tree.supervisor("root")
        await root.start_child(ChildSpec("waiting", Counter))
        await root.start_child(ChildSpec("done", Counter, restart="transient"))
        await root.start_child(ChildSpec("slow", _sleeper(1)))
        await root.start_child(gated("leaving", gate, restart="transient"))
        tree.inject_fault("waiting", ValueError("x"))
        tree.ref("done").cast(StopYourself())
        await settle()
        assert (await statuses(tree))["waiting"] == "restarting"
        tree.inject_fault("leaving", ValueError("x"))
        tree.request_shutdown("enough")
        await clock.advance(1)
        assert (await tree.wait()).exit_code == 0


async def test_a_dynamic_supervisor_among_dynamic_children_ends_with_them() -> None:
    clock = VirtualClock()
    async with open_tree(dynamic_supervisor("root"), clock=clock) as tree:
        for name in ("one", "two"):
            await tree.supervisor("root").start_child(dynamic_supervisor(name))
            for _ in range(3):
                await tree.supervisor(name).start_numbered(ChildSpec(name, _sleeper(3)))
        tree.request_shutdown("enough")
        await clock.advance(3)
        await tree.wait()


async def test_ids_are_made_on_request_and_never_again_for_another() -> None:
    async with open_tree(dynamic_supervisor("root", max_children=3)) as tree:
        root = tree.supervisor("root")
        await root.start_child(ChildSpec("w.2", Counter))
        first = await root.start_numbered(ChildSpec("w", Counter, restart="temporary"))
        first.cast(StopYourself())
        await settle()
        with pytest.raises(NotRunning):
            await first.call(GetAll())
        refs = [await root.start_numbered(ChildSpec("w", Counter, restart="temporary")) for _ in range(2)]
        assert [first.name, *(ref.name for ref in refs)] == ["w.1", "w.3", "w.4"]
        with pytest.raises(TooManyChildren):
            await root.start_numbered(ChildSpec("w", Counter))
        for number, ref in enumerate(refs):
            ref.cast(Put(number))
            assert await ref.call(GetAll()) == [number]


async def test_many_may_be_started_at_the_same_time() -> None:
    """Each start is a request of its own, so exits and other requests are served between any two."""
    async with open_tree(dynamic_supervisor("root")) as tree:
        root = tree.supervisor("root")
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(root.start_numbered, ChildSpec("w", Counter))
        assert sorted(await statuses(tree)) == sorted(f"w.{number}" for number in range(1, 101))


async def test_one_that_asks_while_it_is_ended_is_refused() -> None:
    """Both the supervisor that ends it and the one above that waits for that."""
    told: list[str] = []

    class Asking(Actor):
        def __init__(self, tree: list[Tree], whom: str) -> None:
            self.tree, self.whom = tree, whom

        async def on_stop(self, reason: Reason) -> None:
            try:
                await self.tree[0].supervisor(self.whom).terminate_child("nobody")
            except SupervisorStopping:
                told.append(self.whom)

    trees: list[Tree] = []
    async with open_tree(SupervisorSpec("root", [dynamic_supervisor("pool")]), clock=VirtualClock()) as tree:
        trees.append(tree)
        for whom in ("pool", "root"):
            await tree.supervisor("pool").start_child(ChildSpec(whom + "-", lambda whom=whom: Asking(trees, whom)))  # type: ignore[misc]
        await tree.supervisor("root").terminate_child("pool")
        assert sorted(told) == ["pool", "root"]
