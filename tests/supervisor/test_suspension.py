"""Suspending an actor and resuming it, past its mailbox: as a task and as a process."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import anyio
import pytest

from supervisor import (
    Actor,
    CallFailed,
    CallingSelf,
    CallTimeout,
    ChildSpec,
    NoSuchActor,
    NotRunning,
    SupervisorSpec,
    on,
    open_tree,
)
from supervisor.testing import EventLog, settle
from tests.supervisor.helpers import Counter, GetAll, Hold, Narrow, Put, one
from tests.supervisor.process_actors import Add, Downs, Note, Noted, Quit, Sleep, Watch
from tests.supervisor.processes import next_life, process_child, task_child, tree_of

pytestmark = pytest.mark.anyio


async def test_a_suspended_actor_handles_nothing_until_it_is_resumed(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        worker, look = tree.ref("Worker"), tree.introspection
        worker.cast(Note(1))
        await look.suspend("Worker")
        assert tree.view().children[0].status == look.state("Worker").status == "suspended"
        worker.cast(Note(2))
        with pytest.raises(CallTimeout):
            await worker.call(Noted(), timeout=0.2)
        await look.suspend("Worker")  # twice is once
        await look.resume("Worker")
        assert look.state("Worker").status == "running"
        assert await worker.call(Noted()) == [1, 2]
        await look.resume("Worker")
        assert await worker.call(Add(1, 2)) == 3


async def test_the_message_in_hand_is_done_before_the_actor_is_suspended(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        worker = tree.ref("Worker")
        steps = EventLog(tree.stream, ["steps"])
        asleep = worker.request(Sleep(0.3), timeout=5)
        await steps.wait_for(sleeps=0.3)
        await tree.introspection.suspend("Worker")
        assert asleep.done
        await asleep


async def test_a_call_that_waits_on_a_suspended_actor_is_answered_when_it_is_resumed(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        await tree.introspection.suspend("Worker")
        waiting = tree.ref("Worker").request(Add(2, 2), timeout=10)
        await tree.introspection.resume("Worker")
        assert await waiting == 4


async def test_a_suspended_actor_can_be_stopped(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        steps = EventLog(tree.stream, ["steps"])
        await tree.introspection.suspend("Worker")
        waiting = tree.ref("Worker").request(Add(2, 2), timeout=30)
        with anyio.fail_after(5):
            await tree.supervisor("root").terminate_child("Worker")
        assert steps.topic("steps"), "on_stop ran"
        with pytest.raises(CallFailed):
            await waiting
    async with tree_of(child) as tree:
        await tree.introspection.suspend("Worker")
        with anyio.fail_after(5):
            tree.request_shutdown("enough")
            assert (await tree.wait()).exit_code == 0


async def test_a_restart_ends_the_suspension_and_keeps_the_casts(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        worker = tree.ref("Worker")
        await tree.introspection.suspend("Worker")
        worker.cast(Note(7))
        tree.inject_fault("Worker", ValueError("while suspended"))
        await next_life(worker, 1)
        assert tree.introspection.state("Worker").status == "running"
        assert await worker.call(Noted()) == [7]
        assert "while suspended" in (tree.introspection.state("Worker").last_exit or "")


async def test_the_end_of_a_peer_is_told_after_the_suspension(child: ChildSpec) -> None:
    async with tree_of(task_child("Peer"), child) as tree:
        worker = tree.ref("Worker")
        worker.cast(Watch("Peer"))
        await worker.call(Add(0, 0))
        await tree.introspection.suspend("Worker")
        tree.ref("Peer").cast(Quit())
        await next_life(tree.ref("Peer"), 1)
        await tree.introspection.resume("Worker")
        with anyio.fail_after(5):
            while not (downs := await worker.call(Downs())):
                continue
        assert downs == ["Peer#1: normal"]


async def test_an_order_to_a_wedged_actor_times_out_and_is_not_obeyed_later() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        holding = tree.ref("a").request(Hold(), timeout=10)
        await settle()
        with pytest.raises(CallTimeout):
            await tree.introspection.suspend("a", timeout=0.05)
        actor.hold.set()
        await holding
        assert await tree.ref("a").call(GetAll()) == []
        assert tree.introspection.state("a").status == "running"


async def test_an_order_to_a_stopped_process_times_out(anyio_backend: str) -> None:
    async with tree_of(process_child()) as tree:
        pid = tree.introspection.state("Worker").pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CallTimeout):
            await tree.introspection.suspend("Worker", timeout=0.2)
        os.kill(pid, signal.SIGCONT)
        assert await tree.ref("Worker").call(Add(1, 1)) == 2


async def test_an_order_under_way_fails_with_the_incarnation(child: ChildSpec) -> None:
    async with tree_of(replace(child, shutdown=0.2)) as tree:  # it sleeps on when it is told to stop
        worker = tree.ref("Worker")
        steps = EventLog(tree.stream, ["steps"])
        worker.request(Sleep(60), timeout=60)
        await steps.wait_for(sleeps=60)
        order = tree.introspection.suspend("Worker", timeout=60)
        await settle()
        with anyio.fail_after(10):
            await tree.introspection.restart("Worker")
            with pytest.raises(CallFailed):
                await order
        assert await worker.call(Add(1, 1)) == 2


async def test_who_does_not_run_is_not_suspended() -> None:
    spec = SupervisorSpec("root", [SupervisorSpec("below", [ChildSpec("a", Counter)]), ChildSpec("b", Counter)])
    async with open_tree(spec) as tree:
        look = tree.introspection
        for name in ("nobody", "below"):
            with pytest.raises(NoSuchActor, match=name):
                look.suspend(name)
        await tree.supervisor("root").terminate_child("b")
        with pytest.raises(NotRunning):
            await look.suspend("b")


class Navel(Actor):
    """Gives orders to itself."""

    @on(GetAll)
    async def _(self, message: GetAll) -> list[int]:
        with pytest.raises(CallingSelf):
            await self.context.introspection.suspend("a")
        return [1]


async def test_an_actor_that_waits_for_its_own_suspension_is_told_at_once() -> None:
    async with open_tree(one(Navel())) as tree:
        assert await tree.ref("a").call(GetAll()) == [1]


async def test_the_mailbox_of_a_suspended_actor_keeps_its_bound_and_senders_wait() -> None:
    actor, values = Narrow(), [1, 2, 3]
    async with open_tree(one(actor)) as tree, anyio.create_task_group() as tasks:
        await tree.introspection.suspend("a")
        for value in values:
            tasks.start_soon(tree.ref("a").send, Put(value))
            await settle()
        assert tree.introspection.state("a").mailbox == 2
        await tree.introspection.resume("a")
        assert await tree.ref("a").call(GetAll()) == values


async def test_all_are_resumed_at_once() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter), ChildSpec("b", Counter)])) as tree:
        await tree.introspection.suspend("a")
        await tree.introspection.suspend("b")
        tree.introspection.resume_all()
        assert await tree.ref("a").call(GetAll()) == await tree.ref("b").call(GetAll()) == []
