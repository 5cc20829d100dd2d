"""What is asked of a supervisor, or falls to it, while a child of it is stuck."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import anyio
import pytest

from supervisor import (
    ChildRestarting,
    ChildSpec,
    ChildStartFailed,
    StopIncomplete,
    SupervisorSpec,
    Tree,
    open_tree,
)
from supervisor.testing import EventLog, VirtualClock, settle
from tests.supervisor.helpers import Counter, Fail
from tests.supervisor.otp.kit import Naughty, lives, statuses

pytestmark = pytest.mark.anyio


class _Obstinate(Counter):
    """Does not end its start before the test lets it, even when it is cancelled; fails then."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = anyio.Event()

    async def on_start(self) -> None:
        if self.context.incarnation > 1:
            with anyio.CancelScope(shield=True):
                await self.let_go.wait()


async def _failure(asked: Awaitable[object], told: list[Exception]) -> None:
    try:
        await asked
    except (StopIncomplete, ChildStartFailed, ChildRestarting) as error:
        told.append(error)


async def test_a_temporary_child_that_was_terminated_is_forgotten_once_it_has_ended() -> None:
    clock, naughty, told = VirtualClock(), Naughty(), list[Exception]()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: naughty, restart="temporary", shutdown=1)])
    async with open_tree(spec, clock=clock) as tree, anyio.create_task_group() as tasks:
        tasks.start_soon(_failure, tree.supervisor("root").terminate_child("a"), told)
        await clock.advance(2)
        assert isinstance(told[0], StopIncomplete)
        assert await statuses(tree) == {"a": "stuck"}
        assert tree._runtime.supervisors["root"].busy == set(), "it waits for nobody any more"
        naughty.let_go.set()
        await settle()
        assert await statuses(tree) == {}
        await tree.supervisor("root").start_child(ChildSpec("a", Counter))


async def test_a_temporary_sibling_holds_up_its_group_and_is_forgotten_once_it_has_ended() -> None:
    clock, naughty = VirtualClock(), Naughty()
    children = [ChildSpec("a", Counter), ChildSpec("b", lambda: naughty, restart="temporary", shutdown=1)]
    async with open_tree(SupervisorSpec("root", children, strategy="one_for_all"), clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await clock.advance(2)
        assert await statuses(tree) == {"a": "restarting", "b": "stuck"}
        naughty.let_go.set()
        await settle()
        assert await statuses(tree) == {"a": "running"}


async def test_one_that_hangs_in_its_own_end_is_reported_once() -> None:
    clock, naughty, told = VirtualClock(), Naughty(), list[Exception]()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: naughty, shutdown=1)])
    async with open_tree(spec, clock=clock) as tree, anyio.create_task_group() as tasks:
        log = EventLog(tree.stream)
        tree.inject_fault("a", ValueError("x"))
        await clock.advance(2)
        assert len(log.read(event="stuck")) == 1
        tasks.start_soon(_failure, tree.supervisor("root").terminate_child("a"), told)
        await clock.advance(2)
        assert isinstance(told[0], StopIncomplete)
        assert len(log.read(event="stuck")) == 1
        naughty.let_go.set()


async def test_a_restart_by_hand_that_neither_starts_nor_ends_is_told_and_the_child_counts_as_there() -> None:
    clock, obstinate, told = VirtualClock(), _Obstinate(), list[Exception]()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: obstinate, start_timeout=1, shutdown=1)])
    async with open_tree(spec, clock=clock) as tree, anyio.create_task_group() as tasks:
        root = tree.supervisor("root")
        await root.terminate_child("a")
        tasks.start_soon(_failure, root.restart_child("a"), told)
        await clock.advance(1 + 1 + 1)
        assert isinstance(told[0], ChildStartFailed)
        assert "no ack within 1 s" in str(told[0])
        assert await statuses(tree) == {"a": "stuck"}
        obstinate.let_go.set()
        await settle()
        assert await statuses(tree) == {"a": "stopped"}


@pytest.mark.parametrize("stuck", ["a", "b"])
async def test_renewing_one_of_a_group_that_is_held_up(stuck: str) -> None:
    """Either it is itself what will not end, or another one that falls with it; both are started in the end."""
    clock, naughty, told = VirtualClock(), Naughty(), list[Exception]()
    children = [
        ChildSpec(name, (lambda: naughty) if name == stuck else Counter, shutdown=1)  # type: ignore[arg-type, return-value]
        for name in "ab"
    ]
    async with open_tree(SupervisorSpec("root", children, strategy="rest_for_one"), clock=clock) as tree:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_failure, tree.supervisor("root").renew_child("a"), told)
            await clock.advance(2)
            assert isinstance(told[0], StopIncomplete if stuck == "a" else ChildRestarting)
            with pytest.raises(ChildRestarting):
                await tree.supervisor("root").renew_child("b")
            naughty.let_go.set()
            await settle()
            assert await statuses(tree) == {"a": "running", "b": "running"}
            assert await lives(tree) == {"a": 2, "b": 2}


async def test_a_restarted_supervisor_waits_for_what_its_last_life_left_stuck_no_longer_than_a_start_may_take() -> None:
    clock, naughty = VirtualClock(), Naughty()
    child = ChildSpec("a", lambda: naughty, shutdown=1, start_timeout=10)
    inner = SupervisorSpec("inner", [ChildSpec("b", Counter), child], intensity=0)
    async with open_tree(SupervisorSpec("root", [inner], intensity=1, period=60), clock=clock) as tree:
        log = EventLog(tree.stream)
        tree.inject_fault("b", ValueError("more than it allows"))
        await clock.advance(2 + 10)
        (failed,) = log.read(event="gave_up", actor="inner")
        assert "StillStopping" in failed["reason"]
        assert log.read(event="started", actor="a") == []
        naughty.let_go.set()
        await settle()
        assert (await tree.wait()).exit_code == 1


@asynccontextmanager
async def _waiting_for_the_name(naughty: Naughty) -> AsyncIterator[tuple[Tree, VirtualClock, EventLog]]:
    """A supervisor in its second life, which waits for what the first one left stuck."""
    clock = VirtualClock()
    child = ChildSpec("a", lambda: naughty, shutdown=1, start_timeout=10)
    inner = SupervisorSpec("inner", [ChildSpec("b", Counter), child, ChildSpec("c", Counter)], intensity=0)
    async with open_tree(SupervisorSpec("root", [inner], intensity=1, period=60), clock=clock) as tree:
        log = EventLog(tree.stream)
        tree.inject_fault("b", ValueError("more than it allows"))
        await clock.advance(2 + 5)
        assert await statuses(tree, "inner") == {"b": "running", "a": "stuck", "c": "not started"}
        yield tree, clock, log
        naughty.let_go.set()
        await settle()


async def test_it_is_started_as_soon_as_its_name_is_free() -> None:
    naughty = Naughty()
    async with _waiting_for_the_name(naughty) as (tree, _, log):
        naughty.let_go.set()
        await settle()
        assert await statuses(tree, "inner") == {"b": "running", "a": "running", "c": "running"}
        assert len(log.read(event="restarting")) == 1, "that was no failed start"


async def test_one_that_waits_for_its_name_can_be_terminated() -> None:
    naughty = Naughty()
    async with _waiting_for_the_name(naughty) as (tree, clock, _):
        await tree.supervisor("inner").terminate_child("a")
        assert (await statuses(tree, "inner"))["c"] == "running"
        assert clock.monotonic() == 7
        assert tree._runtime.supervisors["inner"].busy == set()


async def test_a_supervisor_that_waits_for_a_name_can_be_stopped() -> None:
    naughty = Naughty()
    async with _waiting_for_the_name(naughty) as (tree, clock, _):
        tree.request_shutdown("enough")
        await tree.wait()
        assert clock.monotonic() == 7


async def test_a_child_is_terminated_while_its_supervisor_boots() -> None:
    """The boot goes on without it."""
    clock, obstinate = VirtualClock(), _Obstinate()
    inner = SupervisorSpec("inner", [ChildSpec("a", lambda: obstinate), ChildSpec("b", Counter)], intensity=0)
    async with open_tree(SupervisorSpec("root", [inner]), clock=clock) as tree, anyio.create_task_group() as tasks:
        tree.inject_fault("b", ValueError("more than it allows"))
        await settle()
        assert await statuses(tree, "inner") == {"a": "starting", "b": "not started"}
        tasks.start_soon(tree.supervisor("inner").terminate_child, "a")
        await settle()
        obstinate.let_go.set()
        await settle()
        assert await statuses(tree, "inner") == {"a": "stopped", "b": "running"}
        assert await statuses(tree) == {"inner": "running"}
