"""What kameo's suite holds a mailbox to across a restart and at a stop."""

from __future__ import annotations

import anyio
import pytest

from protocol.messages.common import Message
from supervisor import (
    Actor,
    CallFailed,
    ChildSpec,
    Restarting,
    Stopping,
    SupervisorSpec,
    SupervisorStopping,
    on,
    open_tree,
)
from supervisor.testing import Gate, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold, Put, StopYourself
from tests.supervisor.otp.kit import lives, statuses

pytestmark = pytest.mark.anyio


class GatedCounter(Counter):
    """A counter whose starts and stops are the test's to decide."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    async def on_start(self) -> None:
        await self.gate.pass_start()

    async def on_stop(self, reason: object) -> None:
        await self.gate.stop_gate.wait()


async def _survive(ending: Message) -> None:
    gate = Gate()
    async with open_tree(SupervisorSpec("root", [ChildSpec("worker", lambda: GatedCounter(gate))])) as tree:
        ref = tree.ref("worker")
        gate.hold_stop()
        ref.cast(ending)
        ref.cast(Put(0))
        await settle()
        ref.cast(Put(1))
        gate.shut()
        gate.stop_gate.set()
        await settle()
        ref.cast(Put(2))
        gate.open()
        await settle()
        assert await lives(tree) == {"worker": 2}
        assert await ref.call(GetAll()) == [0, 1, 2]
        assert tree.dead_letters == {}


async def test_messages_survive_supervised_panic_restart() -> None:
    """Casts that wait when the actor crashes, and those that come while it is down, are kept in order."""
    await _survive(Fail())


async def test_messages_survive_supervised_normal_stop_restart() -> None:
    """The same when a permanent actor ends normally."""
    await _survive(StopYourself())


class AskBack(Actor):
    """Asks its own supervisor, or a sibling, when it is told to, and says how that went."""

    def __init__(self, results: list[Exception], go: anyio.Event) -> None:
        self.results = results
        self.go = go

    @on(Put)
    async def _(self, message: Put) -> None:
        await self.go.wait()
        try:
            await self.context.ref("parent").call(GetAll(), timeout=1000)
        except CallFailed as error:
            self.results.append(error)


@pytest.mark.parametrize("children", [1, 2])
async def test_supervised_child_ask_to_stopping_supervisor_does_not_deadlock(children: int) -> None:
    """Children that ask their stopping supervisor in the middle of their work are told at once."""
    go, refusals = anyio.Event(), list[SupervisorStopping]()

    class Asks(Actor):
        @on(Put)
        async def _(self, message: Put) -> None:
            await go.wait()
            try:
                await tree.supervisor("root").start_child(ChildSpec("more", Counter))
            except SupervisorStopping as error:
                refusals.append(error)

    names = [f"child{number}" for number in range(children)]
    spec = SupervisorSpec("root", [ChildSpec(name, Asks, shutdown="infinity") for name in names])
    with anyio.fail_after(10):
        async with open_tree(spec) as tree:
            for name in names:
                tree.ref(name).cast(Put(1))
            await settle()
            tree.request_shutdown("enough")
            await settle()
            go.set()
            await tree.wait()
    assert len(refusals) == children


async def test_sibling_linked_child_ask_to_killed_parent_does_not_deadlock() -> None:
    """A call to an actor that goes down for good while the call waits fails at once."""
    results, go = list[Exception](), anyio.Event()
    go.set()
    spec = SupervisorSpec(
        "root", [ChildSpec("parent", Counter, shutdown=0), ChildSpec("child", lambda: AskBack(results, go))]
    )
    async with open_tree(spec) as tree:
        held = tree.ref("parent").request(Hold(), timeout=1000)
        tree.ref("child").cast(Put(1))
        await settle()
        await tree.supervisor("root").terminate_child("parent")
        await settle()
        assert [type(error) for error in results] == [Stopping]
        with pytest.raises(CallFailed):
            await held


async def test_ask_during_restart_returns_actor_restarting() -> None:
    """A call that waits when the actor goes down, and one that comes while it is down, fail as restarting, at once."""
    gate = Gate()
    async with open_tree(SupervisorSpec("root", [ChildSpec("worker", lambda: GatedCounter(gate))])) as tree:
        ref = tree.ref("worker")
        gate.shut()
        ref.cast(Fail())
        waiting = ref.request(GetAll(), timeout=1000)
        ref.cast(Put(0))
        await settle()
        for call in (waiting, ref.request(GetAll(), timeout=1000)):
            with pytest.raises(Restarting):
                await call
        gate.open()
        await settle()
        assert await ref.call(GetAll()) == [0]


async def test_tells_survive_restart_of_actor_with_children() -> None:
    """Casts to an actor that falls with a slow sibling wait for the whole group to be back."""
    gate = Gate()
    children = [ChildSpec("middle", Counter), ChildSpec("slow", lambda: GatedCounter(gate))]
    async with open_tree(SupervisorSpec("root", children, strategy="one_for_all")) as tree:
        gate.hold_stop()
        tree.ref("middle").cast(Fail())
        await settle()
        assert await statuses(tree) == {"middle": "restarting", "slow": "stopping"}
        tree.ref("middle").cast(Put(0))
        tree.ref("slow").cast(Put(1))
        gate.stop_gate.set()
        await settle()
        assert await tree.ref("middle").call(GetAll()) == [0]
        assert await tree.ref("slow").call(GetAll()) == [1]
