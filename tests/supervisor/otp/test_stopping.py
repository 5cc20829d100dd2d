"""OTP's cases of stopping: order, time limits, kills, and children that end otherwise than they were asked to."""

from __future__ import annotations

import anyio
import pytest

from supervisor import ChildSpec, Reason, Shutdown, StopIncomplete, SupervisorSpec, open_tree
from supervisor.dynamic import dynamic_supervisor
from supervisor.testing import EventLog, Gate, VirtualClock, settle
from tests.supervisor.helpers import Counter, Hold
from tests.supervisor.otp.kit import (
    EVERY_END,
    REPORTED,
    Naughty,
    Sleeper,
    child,
    counts,
    end,
    ends,
    gated,
    lives,
    tell_end,
)
from tests.supervisor.processes import process_child

pytestmark = pytest.mark.anyio

STOPPED = "shutdown: enough"


async def test_sup_stop_infinity() -> None:
    """Children with all the time they need end by themselves, workers and supervisors."""
    clock = VirtualClock()
    below = SupervisorSpec("child1", [ChildSpec("slow", lambda: Sleeper(1e6), shutdown="infinity")])
    children = [below, ChildSpec("child2", lambda: Sleeper(1e6), shutdown="infinity")]
    async with open_tree(SupervisorSpec("root", children, intensity=2, period=3600), clock=clock) as tree:
        log = EventLog(tree.stream)
        tree.request_shutdown("enough")
        await settle()
        await clock.advance(2e6)
        await tree.wait()
        assert [ends(log, name) for name in ("slow", "child1", "child2")] == [[STOPPED]] * 3


async def _one_oversleeps(spec: SupervisorSpec) -> None:
    clock = VirtualClock()
    async with open_tree(spec, clock=clock) as tree:
        log = EventLog(tree.stream)
        for name in ("child1", "child2"):
            await tree.supervisor("root").start_child(child(name, shutdown=1, restart="temporary"))
        held = tree.ref("child2").request(Hold(), timeout=1000)
        await settle()
        tree.request_shutdown("enough")
        await clock.advance(0.99)
        assert ends(log, "child2") == []
        await clock.advance(0.01)
        await tree.wait()
        assert ends(log, "child1") == [STOPPED]
        assert ends(log, "child2") == ["killed"]
        assert held.done


async def test_sup_stop_timeout() -> None:
    """A child that is busy for longer than its limit is cancelled, which counts as killed; the others stop in order."""
    await _one_oversleeps(SupervisorSpec("root", intensity=2, period=3600))


async def test_sup_stop_timeout_dynamic() -> None:
    """The same under a dynamic supervisor."""
    await _one_oversleeps(dynamic_supervisor("root", intensity=2, period=3600))


async def test_sup_stop_brutal_kill() -> None:
    """A process that is to be killed is not asked; the child before it is."""
    spec = SupervisorSpec("root", [child("child1", shutdown=1), process_child("child2", shutdown="brutal_kill")])
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        tree.request_shutdown("enough")
        await tree.wait()
        assert ends(log, "child2") == ["killed"]
        assert ends(log, "child1") == [STOPPED]


async def test_sup_stop_brutal_kill_dynamic() -> None:
    """The same of several processes under a dynamic supervisor."""
    names = [f"child{number}" for number in range(3)]
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600)) as tree:
        log = EventLog(tree.stream)
        for name in names:
            await tree.supervisor("root").start_child(process_child(name, shutdown="brutal_kill", restart="temporary"))
        tree.request_shutdown("enough")
        await tree.wait()
        assert [ends(log, name) for name in names] == [["killed"]] * 3


async def test_sup_stop_race() -> None:
    """Children that end by themselves while the supervisor stops, for whatever reason, neither stall nor break it."""
    gate = Gate()
    gate.hold_stop()
    racing = {
        f"{restart}-{how}": (how, child(f"{restart}-{how}", restart=restart, shutdown=1))
        for restart in ("temporary", "transient", "permanent")
        for how in EVERY_END
    }
    children = [child("first", restart="temporary"), *(spec for _, spec in racing.values()), gated("last", gate)]
    async with open_tree(SupervisorSpec("root", children, intensity=2, period=3600), clock=VirtualClock()) as tree:
        log = EventLog(tree.stream)
        tree.request_shutdown("enough")
        await settle()
        for name, (how, _) in racing.items():
            tell_end(tree, name, how)
        await settle()
        gate.stop_gate.set()
        report = await tree.wait()
        assert report.reason == Shutdown("enough")
        assert ends(log, "last") == ends(log, "first") == [STOPPED]
        for name, (how, _) in racing.items():
            assert ends(log, name) == [REPORTED[how]], "once, and with its own reason"
        assert log.read(event="restarting") == []


class _Untidy(Counter):
    async def on_stop(self, reason: Reason) -> None:
        raise OSError("while cleaning up")


@pytest.mark.parametrize("restart", ["temporary", "transient", "permanent"])
async def test_sup_stop_non_shutdown_exit_dynamic(restart: str) -> None:
    """A child that fails while it stops is reported with its reason, and the supervisor's end is a clean one."""
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600)) as tree:
        log = EventLog(tree.stream)
        await tree.supervisor("root").start_child(child("clean", restart=restart))
        await tree.supervisor("root").start_child(ChildSpec("untidy", _Untidy, restart=restart))  # type: ignore[arg-type]
        tree.request_shutdown("enough")
        assert (await tree.wait()).reason == Shutdown("enough")
        assert ends(log, "clean") == [STOPPED]
        assert ends(log, "untidy") == ["crash: OSError: while cleaning up"]
        assert [crash["actor"] for crash in log.topic("crashes")] == ["untidy"]


async def test_simple_one_for_one_shutdown() -> None:
    """Dynamic children are asked all at once; each has its own limit, and nobody waits for another."""
    clock = VirtualClock()
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600), clock=clock) as tree:
        log = EventLog(tree.stream)
        for name, seconds in (("child1", 1), ("child2", 1), ("child3", 5)):
            spec = ChildSpec(name, lambda seconds=seconds: Sleeper(seconds), shutdown=2)  # type: ignore[misc]
            await tree.supervisor("root").start_child(spec)
        tree.request_shutdown("enough")
        await clock.advance(1)
        assert [ends(log, f"child{number}") for number in (1, 2, 3)] == [[STOPPED], [STOPPED], []]
        await clock.advance(1)
        await tree.wait()
        assert ends(log, "child3") == ["killed"]


async def test_child_unlink() -> None:
    """A child that does not go away whatever is done holds up whoever waits for it, never its supervisor."""
    clock, naughty = VirtualClock(), Naughty()
    async with open_tree(SupervisorSpec("root"), clock=clock) as tree, anyio.create_task_group() as tasks:
        root = tree.supervisor("root")
        errors: list[StopIncomplete] = []

        async def terminate() -> None:
            try:
                await root.terminate_child("naughty")
            except StopIncomplete as error:
                errors.append(error)

        await root.start_child(ChildSpec("naughty", lambda: naughty, shutdown=1))
        tasks.start_soon(terminate)
        await settle()
        assert await counts(tree) == (1, 1, 0, 1), "it answers while it waits"
        await clock.advance(1)
        await clock.advance(1)
        assert [stuck.name for stuck in errors[0].stuck] == ["naughty"]
        await root.start_child(child("other"))
        naughty.let_go.set()
        await settle()
        assert await counts(tree) == (2, 1, 0, 2)


async def test_order_of_children() -> None:
    """Children start in the order they stand in, whatever their names, and stop in the opposite one."""
    journal: list[str] = []
    names = ["ch7", "ch3", "ch10", "ch2", "ch5"]
    spec = SupervisorSpec("root", [child(name, journal) for name in names], strategy="rest_for_one")
    async with open_tree(spec) as tree:
        assert journal == [f"start {name}" for name in names]
        journal.clear()
        await end(tree, "ch10")
        assert journal == [
            "stop ch10 Crash",
            "stop ch5 Shutdown",
            "stop ch2 Shutdown",
            "start ch10",
            "start ch2",
            "start ch5",
        ]
        assert list(await lives(tree)) == names
        journal.clear()
    assert journal == [f"stop {name} Shutdown" for name in reversed(names)]
