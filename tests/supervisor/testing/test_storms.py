"""The public storm, on strangers' trees: repeatable under the virtual clock, real kills of processes, faults found."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from supervisor import (
    Actor,
    Backoff,
    CallFailed,
    ChildSpec,
    Clock,
    CoolDown,
    Reason,
    Request,
    SupervisorSpec,
    SystemClock,
    Tree,
    joinable,
    on,
    open_guest,
    open_tree,
)
from supervisor.control import ControlSocket
from supervisor.dynamic import dynamic_supervisor
from supervisor.testing import Blow, EventLog, Storm, VirtualClock
from tests.supervisor.process_actors import Add
from tests.supervisor.processes import process_child, task_child

pytestmark = pytest.mark.anyio


class Ask(Request[int], frozen=True):
    pass


class Slow(Actor):
    """Takes a second of the tree's time to start and to stop, and calls its peer before it answers."""

    def __init__(self, peer: str | None) -> None:
        self.peer = peer

    async def on_start(self) -> None:
        await self.context.clock.sleep(1)

    async def on_stop(self, reason: Reason) -> None:
        await self.context.clock.sleep(0.5)

    @on(Ask)
    async def _(self, message: Ask) -> int:
        return 1 if self.peer is None else 1 + await self.context.ref(self.peer).call(Ask())


def spec(strategy: str) -> SupervisorSpec:
    below = SupervisorSpec(
        "below",
        [ChildSpec("a", lambda: Slow(None)), ChildSpec("b", lambda: Slow("a")), ChildSpec("c", lambda: Slow("b"))],
        strategy=strategy,  # type: ignore[arg-type]
        backoff=Backoff(first=0.5, factor=2, most=4),
        intensity=5,
        period=60,
        on_give_up=CoolDown(20),
    )
    return SupervisorSpec("root", [below, ChildSpec("odd", lambda: Slow("c"), restart="transient")], intensity=1000)


async def opened(tree_spec: SupervisorSpec, seed: int, blows: int, seconds: float) -> tuple[list[Blow], list[object]]:
    """Storm over a tree under a virtual clock; the blows, and what the tree told."""
    clock = VirtualClock()
    tree = Tree(tree_spec, clock, "root")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tree.boot)
        await clock.advance(10)
        log = EventLog(tree.stream, ["lifecycle"])
        storm = Storm(tree, seed)
        await storm.rage(blows, seconds)
        await storm.calm()
        answer = tree.ref("odd").request(Ask(), timeout=30)
        await clock.advance(30)
        assert answer.result() == 4
        tasks.start_soon(tree.close)
        await clock.advance(60)
    told: list[object] = [(one["event"], one["actor"], one["incarnation"], one["reason"]) for one in log.read()]
    return storm.blows, told


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_one_seed_is_one_course_of_events(strategy: str, anyio_backend: str) -> None:
    first = await opened(spec(strategy), 7, blows=40, seconds=600)
    assert {blow.kind for blow in first[0]} == {"crash", "delay", "loss"}
    assert len(first[1]) > 40
    if anyio_backend == "asyncio":  # trio shuffles those that are ready
        assert await opened(spec(strategy), 7, blows=40, seconds=600) == first
    assert (await opened(spec(strategy), 8, blows=40, seconds=600))[0] != first[0]


async def test_only_those_named_are_struck_and_only_so() -> None:
    async with open_tree(SupervisorSpec("root", [task_child("a"), task_child("b")], intensity=99)) as tree:
        storm = Storm(tree, 1, actors=["a"], kinds=["loss"], longest=0.01)
        await storm.rage(10, seconds=0.2)
        await storm.calm()
        assert storm.blows and {(blow.actor, blow.kind) for blow in storm.blows} == {("a", "loss")}
        assert tree.introspection.state("b").incarnation == 1


@pytest.mark.parametrize("clock", [SystemClock, VirtualClock])
async def test_processes_are_killed_and_come_back(clock: type[Clock]) -> None:
    """A virtual clock stands still while a process starts or ends: no limit passes that is meant for real time."""
    children = [process_child("A"), process_child("B"), task_child("Peer")]
    async with open_tree(SupervisorSpec("root", children, intensity=1000), clock=clock()) as tree:
        log = EventLog(tree.stream)
        storm = Storm(tree, 3, longest=0.2)
        await storm.rage(15, seconds=1.5 if clock is SystemClock else 1000)
        await storm.calm()
        for name in ("A", "B", "Peer"):
            assert await tree.ref(name).call(Add(1, 2), timeout=20) == 3
        struck = [blow for blow in storm.blows if blow.kind == "loss" and blow.actor != "Peer"]
        assert struck and log.read(event="exited", reason="killed by signal 9")


async def test_temporary_children_are_not_lost() -> None:
    async with open_tree(SupervisorSpec("root", [dynamic_supervisor("guests")])) as tree:
        await tree.supervisor("guests").start_child(ChildSpec("guest", lambda: Slow(None), restart="temporary"))
        storm = Storm(tree, 1, kinds=["loss"])
        await storm.rage(5, seconds=0.05)
        await storm.calm()
        assert storm.blows == []


async def test_a_guest_is_not_lost_since_its_process_is_somebody_elses(tmp_path: Path) -> None:
    """Here that process is the one of the test."""
    (tmp_path / "run").mkdir(mode=0o700)
    path = tmp_path / "run" / "control.sock"
    children = [joinable("guest"), ChildSpec("ControlSocket", lambda: ControlSocket(path))]
    async with open_tree(SupervisorSpec("root", children)) as tree:
        async with open_guest(path, "guest", lambda: Slow(None)):
            storm = Storm(tree, 1, actors=["guest"], kinds=["loss"])
            await storm.rage(5, seconds=0.05)
            assert storm.blows == []
        await storm.calm()  # it is away, as it may be


async def test_a_tree_that_gave_up_is_told_with_seed_and_blows() -> None:
    clock = VirtualClock()
    async with open_tree(SupervisorSpec("root", [task_child("a")], intensity=1), clock=clock) as tree:
        storm = Storm(tree, 5, kinds=["crash"])
        await storm.rage(10, seconds=1)
        assert len(storm.blows) == 2
        with pytest.raises(AssertionError, match=r"storm of seed 5: the tree has given up[\s\S]*crash  a"):
            await storm.calm()


async def test_an_actor_that_never_comes_back_is_told() -> None:
    class Once(Actor):
        async def on_start(self) -> None:
            if self.context.incarnation > 1:
                raise OSError("only once")

    clock = VirtualClock()
    tree_spec = SupervisorSpec("root", [ChildSpec("once", Once)], on_give_up=CoolDown(5))
    async with open_tree(tree_spec, clock=clock) as tree:
        storm = Storm(tree, 5)
        await storm.rage(5, seconds=10)
        with pytest.raises(AssertionError, match=r"not calm within 60 s[\s\S]*the blows were"):
            await storm.calm()
        with pytest.raises(CallFailed):
            await tree.ref("once").call(Ask())
