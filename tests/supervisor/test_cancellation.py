"""A cancelled scope is no crash; a foreign cancellation is. The scope is asked, never the exception's type."""

from __future__ import annotations

import asyncio

import anyio
import pytest
import trio

from protocol.messages.common import Request
from supervisor import Actor, ChildSpec, HandlerFailed, Restarting, SupervisorSpec, on, open_tree
from supervisor.testing import EventLog, Gate, GatedActor, VirtualClock, eventually, settle
from tests.supervisor.helpers import Counter, GetAll, Put, StopYourself

pytestmark = pytest.mark.anyio


class Ask(Request[str], frozen=True):
    pass


async def test_a_scope_cancelled_inside_a_handler_is_no_crash() -> None:
    class Inner(Actor):
        @on(Ask)
        async def _(self, message: Ask) -> str:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep_forever()
            with anyio.move_on_after(0.001):
                await anyio.sleep_forever()
            return "still here"

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Inner)])) as tree:
        assert await tree.ref("a").call(Ask()) == "still here"
        assert tree.view().children[0].restarts == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_awaiting_a_future_that_somebody_else_cancelled_is_a_crash() -> None:
    """thejerf/suture#77."""

    class Foreign(Actor):
        @on(Ask)
        async def _(self, message: Ask) -> str:
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Foreign, restart="transient")])) as tree:
        log = EventLog(tree.stream)
        with pytest.raises(HandlerFailed, match="CancelledError"):
            await tree.ref("a").call(Ask())
        await log.wait_for(event="started", actor="a", incarnation=2)
        assert log.topic("crashes")[0]["error"] == "CancelledError"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_actor_whose_task_is_cancelled_from_outside_is_restarted() -> None:
    tasks: list[asyncio.Task[object] | None] = []

    class Exposed(Counter):
        async def on_start(self) -> None:
            tasks.append(asyncio.current_task())

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Exposed, restart="transient")])) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Put(1))
        assert await tree.ref("a").call(GetAll()) == [1]
        assert tasks[0] is not None
        tasks[0].cancel()
        await log.wait_for(event="started", actor="a", incarnation=2)
        assert await tree.ref("a").call(GetAll()) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_supervisor_whose_task_is_cancelled_from_outside_stops_its_children_first() -> None:
    journal: list[str] = []
    inner = SupervisorSpec("inner", [ChildSpec(name, lambda: Counter(journal)) for name in "ab"])
    async with open_tree(SupervisorSpec("root", [inner])) as tree:
        log = EventLog(tree.stream)
        journal.clear()
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "inner"]
        task.cancel()
        await log.wait_for(event="started", actor="inner", incarnation=2)
        assert journal == ["stop b Shutdown", "stop a Shutdown", "start a", "start b"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_supervisor_that_is_cancelled_again_while_it_stops_leaves_nobody_behind() -> None:
    gate = Gate()
    gate.hold_stop()
    inner = SupervisorSpec("inner", [ChildSpec("a", lambda: GatedActor(gate))])
    async with open_tree(SupervisorSpec("root", [inner])) as tree:
        log = EventLog(tree.stream)
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "inner"]
        for _ in range(3):
            task.cancel()
            await settle()
        assert log.read(event="exited") == []
        gate.stop_gate.set()
        await log.wait_for(event="started", actor="inner", incarnation=2)
        assert len(log.read(event="exited", actor="a")) == 1


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_cancelled_nursery_of_trio_is_a_cancellation_and_no_crash() -> None:
    """It raises a group of cancellations."""
    clock = VirtualClock()

    async def in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(trio.sleep_forever)

    class Nursing(Counter):
        async def on_start(self) -> None:
            self.context.spawn(in_a_nursery)

        async def on_stop(self, reason: object) -> None:
            if self.context.incarnation == 1:
                await in_a_nursery()

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Nursing, restart="transient")]), clock=clock) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(StopYourself())
        await clock.advance(5)
        assert log.read(event="exited", actor="a")[0]["reason"] == "killed", "past its limit, by our own scope"


async def test_an_exception_of_a_spawned_task_is_the_crash_of_its_actor() -> None:
    class Spawns(Counter):
        async def on_start(self) -> None:
            if self.context.incarnation == 1:
                self.context.spawn(self._beside, "of one")

        async def _beside(self, text: str) -> None:
            await started.wait()
            raise KeyError(text)

    started = anyio.Event()
    actor = Spawns()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: actor)])) as tree:
        log = EventLog(tree.stream)
        from tests.supervisor.helpers import Hold

        held = tree.ref("a").request(Hold(), timeout=60)
        await settle()
        started.set()
        with pytest.raises(Restarting):
            await held
        await log.wait_for(event="started", actor="a", incarnation=2)
        assert "KeyError: 'of one'" in log.topic("crashes")[0]["reason"]


async def test_a_group_of_one_is_unwrapped_and_of_several_is_kept() -> None:
    class Groups(Counter):
        @on(GetAll)
        async def _(self, message: GetAll) -> list[int]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._fail)
            return []

        @on(Ask)
        async def _(self, message: Ask) -> str:
            raise ExceptionGroup("both", [ValueError("one"), KeyError("two")])

        async def _fail(self) -> None:
            raise ValueError("alone")

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Groups)])) as tree:
        with pytest.raises(HandlerFailed):
            await tree.ref("a").call(GetAll())
        await eventually(lambda: tree.view().children[0].restarts == 1)
        assert tree.view().children[0].last_exit == "crash: ValueError: alone"
        with pytest.raises(HandlerFailed):
            await tree.ref("a").call(Ask())
        await eventually(lambda: tree.view().children[0].restarts == 2)
        assert "ExceptionGroup" in (tree.view().children[0].last_exit or "")


async def test_an_error_that_cannot_be_shown_is_a_crash_like_any_other() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Raises(Counter):
        @on(Ask)
        async def _(self, message: Ask) -> str:
            raise Mute

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Raises)])) as tree:
        with pytest.raises(HandlerFailed, match="a Mute that cannot be shown"):
            await tree.ref("a").call(Ask())
        await eventually(lambda: tree.view().children[0].restarts == 1)


async def test_a_system_exit_from_a_library_is_a_crash_and_no_end_of_the_program() -> None:
    import sys

    class Exits(Counter):
        @on(Ask)
        async def _(self, message: Ask) -> str:
            sys.exit(3)

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Exits)])) as tree:
        with pytest.raises(HandlerFailed, match="SystemExit"):
            await tree.ref("a").call(Ask())
        await eventually(lambda: tree.view().children[0].restarts == 1)


def test_a_program_that_is_interrupted_ends() -> None:
    """``asyncio.run`` cancels every task on its way out, ours too; nothing may hang or be restarted then."""

    async def main() -> None:
        async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)])):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_never_closes_its_tree_still_ends(backend: str) -> None:
    async def main() -> None:
        manager = open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)]))
        await manager.__aenter__()
        kept.append(manager)

    kept: list[object] = []
    anyio.run(main, backend=backend)
