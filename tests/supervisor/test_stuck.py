"""A task that swallows its cancellation is named, with its stack, and nothing new starts beside it."""

from __future__ import annotations

import anyio
import pytest

from supervisor import (
    ChildRunning,
    ChildSpec,
    Reason,
    Restarting,
    StopIncomplete,
    Stopping,
    SupervisorSpec,
    Tree,
    on,
    open_tree,
)
from supervisor.testing import EventLog, VirtualClock, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold

pytestmark = pytest.mark.anyio


class Clinging(Counter):
    """Does not end before its test lets it, whatever happens: the shape of an endless loop around a broad catch."""

    def __init__(self, journal: list[str] | None = None) -> None:
        super().__init__(journal)
        self.let_go = anyio.Event()

    async def on_stop(self, reason: Reason) -> None:
        await self._cling_here()

    async def _cling_here(self) -> None:
        with anyio.CancelScope(shield=True):
            await self.let_go.wait()


async def _past_everything(clock: VirtualClock) -> None:
    await clock.advance(5)
    await clock.advance(1)


async def test_leaving_the_tree_names_the_stuck_and_stops_all_others() -> None:
    clock, stuck, journal = VirtualClock(), Clinging(), list[str]()
    children = [ChildSpec("a", lambda: Counter(journal)), ChildSpec("b", lambda: stuck)]
    errors: list[StopIncomplete] = []
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            try:
                async with open_tree(SupervisorSpec("root", children), clock=clock):
                    pass
            except StopIncomplete as error:
                errors.append(error)

        tasks.start_soon(run)
        await settle()
        await clock.advance(4.9)
        assert errors == []
        await clock.advance(0.1)
        await clock.advance(1)
    (error,) = errors
    assert [one.name for one in error.stuck] == ["b"]
    assert "_cling_here" in error.stuck[0].stack
    assert journal == ["start a", "stop a Shutdown"], "the rest of the tree has been stopped"
    stuck.let_go.set()
    await settle()


async def test_a_child_terminated_by_request_that_is_stuck_is_not_started_again_before_it_has_ended() -> None:
    clock, stuck = VirtualClock(), Clinging()
    spec = SupervisorSpec("root", [ChildSpec("b", lambda: stuck), ChildSpec("a", Counter)])
    async with open_tree(spec, clock=clock) as tree, anyio.create_task_group() as tasks:
        log = EventLog(tree.stream)
        root = tree.supervisor("root")
        errors: list[StopIncomplete] = []

        async def terminate() -> None:
            try:
                await root.terminate_child("b")
            except StopIncomplete as error:
                errors.append(error)

        tasks.start_soon(terminate)
        await settle()
        await _past_everything(clock)
        assert "_cling_here" in errors[0].stuck[0].stack
        assert "_cling_here" in log.read(event="stuck", actor="b")[0]["stack"]
        assert _status(tree, "b") == "stuck"
        with pytest.raises(ChildRunning):
            await root.restart_child("b")
        stuck.let_go.set()
        await settle()
        assert _status(tree, "b") == "stopped"
        await root.restart_child("b")
        assert _status(tree, "b") == "running"


async def test_a_group_restart_waits_for_the_stuck_and_serves_requests_meanwhile() -> None:
    clock, stuck = VirtualClock(), Clinging()
    children = [ChildSpec("a", Counter), ChildSpec("b", lambda: stuck)]
    spec = SupervisorSpec("root", children, strategy="one_for_all")
    async with open_tree(spec, clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await settle()
        await _past_everything(clock)
        assert (_status(tree, "a"), _status(tree, "b")) == ("restarting", "stuck")
        await clock.advance(1000)
        assert await _incarnations(tree) == {"a": 1, "b": 1}
        await tree.supervisor("root").start_child(ChildSpec("c", Counter))
        stuck.let_go.set()
        await settle()
        assert (_status(tree, "a"), _status(tree, "b")) == ("running", "running")
        assert await _incarnations(tree) == {"a": 2, "b": 2, "c": 2}, "started by hand, it rises with them"


async def test_a_stuck_start_is_counted_and_retried_only_after_it_has_ended() -> None:
    clock = VirtualClock()
    let_go = anyio.Event()
    starts: list[int] = []

    class SlowStart(Counter):
        async def on_start(self) -> None:
            starts.append(self.context.incarnation)
            if self.context.incarnation == 2:
                with anyio.CancelScope(shield=True):
                    await let_go.wait()

    spec = SupervisorSpec("root", [ChildSpec("a", SlowStart, start_timeout=3)])
    async with open_tree(spec, clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await settle()
        await clock.advance(3)
        await _past_everything(clock)
        await clock.advance(100)
        assert starts == [1, 2]
        assert _status(tree, "a") == "stuck"
        let_go.set()
        await settle()
        assert starts == [1, 2, 3]
        assert _status(tree, "a") == "running"


async def test_a_restarted_supervisor_starts_nothing_beside_what_it_left_stuck() -> None:
    clock, stuck = VirtualClock(), Clinging()
    inner = SupervisorSpec("inner", [ChildSpec("b", lambda: stuck), ChildSpec("c", Counter)], intensity=0)
    async with open_tree(SupervisorSpec("root", [inner], intensity=1000, period=1e6), clock=clock) as tree:
        tree.ref("c").cast(Fail())
        await settle()
        await clock.advance(5)
        stuck.journal.clear()
        await clock.advance(1)
        assert stuck.journal == [], "the name is still taken by the old incarnation"
        stuck.let_go.set()
        await settle()
        assert stuck.journal == ["start b"]
        assert tree.view().children[0].status == "running"


async def test_a_stuck_spawned_task_is_named_too() -> None:
    let_go = anyio.Event()

    class Spawns(Counter):
        async def on_start(self) -> None:
            self.context.spawn(self._cling_beside, name="beside")

        async def _cling_beside(self) -> None:
            with anyio.CancelScope(shield=True):
                await let_go.wait()

    clock = VirtualClock()
    async with anyio.create_task_group() as tasks:
        errors: list[StopIncomplete] = []

        async def run() -> None:
            try:
                async with open_tree(SupervisorSpec("root", [ChildSpec("a", Spawns)]), clock=clock):
                    pass
            except StopIncomplete as error:
                errors.append(error)

        tasks.start_soon(run)
        await settle()
        await _past_everything(clock)
    assert "_cling_beside" in errors[0].stuck[0].stack
    let_go.set()
    await settle()


async def test_one_that_crashed_and_does_not_end_is_named_and_nothing_starts_beside_it() -> None:
    """Nobody had asked it to end, so no supervisor counts its time."""
    clock, stuck = VirtualClock(), Clinging()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: stuck)]), clock=clock) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await clock.advance(5.9)
        assert log.read(event="stuck") == []
        await clock.advance(0.2)
        assert "_cling_here" in log.read(event="stuck", actor="a")[0]["stack"]
        assert _status(tree, "a") == "stuck"
        await clock.advance(100)
        assert await _incarnations(tree) == {"a": 1}
        stuck.let_go.set()
        await settle()
        assert (_status(tree, "a"), await _incarnations(tree)) == ("running", {"a": 2})


async def test_one_that_swallows_the_end_for_want_of_progress_fails_its_callers_and_is_named() -> None:
    clock, let_go = VirtualClock(), anyio.Event()

    class Deaf(Counter):
        @on(Hold)
        async def _(self, message: Hold) -> int:
            with anyio.CancelScope(shield=True):
                await let_go.wait()
            return 1

    spec = SupervisorSpec("root", [ChildSpec("a", Deaf, liveness=10)])
    async with open_tree(spec, clock=clock) as tree:
        ref, log = tree.ref("a"), EventLog(tree.stream)
        held, behind = ref.request(Hold(), timeout=1000), ref.request(GetAll(), timeout=1000)
        await clock.advance(10)
        assert (type(held.error), type(behind.error)) == (Restarting, Restarting)
        with pytest.raises(Restarting):
            await ref.call(GetAll())
        assert log.topic("crashes")[0]["error"] == "Timeout"
        await clock.advance(6)
        assert "let_go.wait" in log.read(event="stuck", actor="a")[0]["stack"]
        let_go.set()
        await settle()
        assert (_status(tree, "a"), await _incarnations(tree)) == ("running", {"a": 2})


async def test_one_past_its_limit_is_shown_with_its_stack_before_it_is_cancelled() -> None:
    clock = VirtualClock()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)]), clock=clock) as tree:
        log = EventLog(tree.stream)
        held = tree.ref("a").request(Hold(), timeout=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tree.supervisor("root").terminate_child, "a")
            await settle()
            await clock.advance(5)
        assert "self.hold.wait()" in log.read(event="overdue", actor="a")[0]["stack"]
        assert isinstance(held.error, Stopping)
        assert log.read(event="stuck") == []


def _status(tree: Tree, name: str) -> str:
    return next(child.status for child in tree.view().children if child.id == name)


async def _incarnations(tree: Tree) -> dict[str, int]:
    return {child.id: child.incarnation for child in await tree.supervisor("root").which_children()}
