"""Looking into a running actor, and what an operator asks of it past its mailbox: as a task and as a process."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest

from protocol.messages.common import Request
from supervisor import (
    Actor,
    CallFailed,
    ChildRestarting,
    ChildSpec,
    ChildStartFailed,
    CoolDown,
    NoSuchActor,
    ProcessStart,
    SupervisorSpec,
    on,
    open_tree,
)
from supervisor.testing import EventLog, Gate, GatedActor, eventually, settle
from tests.supervisor.helpers import Batched as BatchedCall
from tests.supervisor.helpers import Counter, Defer, Fail, GetAll, Hold, Put, one
from tests.supervisor.process_actors import Add, Boom, Note, Noted, Refuse
from tests.supervisor.processes import next_life, tree_of

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------- state


async def test_the_state_of_an_actor(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        worker = tree.ref("Worker")
        worker.cast(Boom("the first"))
        await next_life(worker, 1)
        worker.cast(Note(1))
        await worker.call(Noted())
        await eventually(lambda: tree.introspection.state("Worker").summary == {"numbers": 1})
        await tree.introspection.suspend("Worker")
        state = tree.introspection.state("Worker")
        assert (state.name, state.kind, state.supervisor) == ("Worker", "worker", "root")
        assert (state.incarnation, state.restarts, state.mailbox, state.bound) == (2, 1, 0, 64)
        assert state.last_message == "Noted"
        assert "the first" in (state.last_exit or "") and "raise ValueError(message.text)" in (state.traceback or "")
        assert (state.pid is None) == (child.isolation == "task")
        assert state.uptime_s is not None and state.uptime_s >= 0


async def test_the_state_is_told_of_a_wedged_actor_with_what_waits_in_its_mailbox() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        holding = tree.ref("a").request(Hold(), timeout=10)
        await settle()
        waiting = tree.ref("a").request(GetAll(), timeout=10)
        for value in (1, 2):
            tree.ref("a").cast(Put(value))
        state = tree.introspection.state("a")
        assert (state.last_message, state.waiting) == ("Hold", {"GetAll": 1, "Put": 2})
        actor.hold.set()
        await holding
        await waiting


async def test_the_state_of_a_supervisor_and_of_nobody() -> None:
    async with open_tree(one(Counter())) as tree:
        root = tree.introspection.state("root")
        assert (root.kind, root.supervisor, root.summary) == ("supervisor", None, {})
        with pytest.raises(NoSuchActor, match="there are: a, root"):
            tree.introspection.state("b")


class Odd(Actor):
    """Says of itself what cannot be sent as it is."""

    def __init__(self, summary: Mapping[str, object]) -> None:
        self.said = summary

    def summary(self) -> Mapping[str, object]:
        return self.said


@pytest.mark.parametrize("value", [object(), 1 << 90, "\udcff", {1: {2}}, [float("nan")]])
async def test_a_summary_that_is_no_plain_value_does_no_harm(value: object) -> None:
    async with open_tree(one(Odd({"value": value}))) as tree:
        assert tree.introspection.state("a").summary


# ---------------------------------------------------------------- restart


async def test_restart_keeps_casts_and_is_not_counted(child: ChildSpec) -> None:
    async with tree_of(child, intensity=0) as tree:
        worker = tree.ref("Worker")
        await tree.introspection.suspend("Worker")
        worker.cast(Note(3))
        state = await tree.introspection.restart("Worker")
        assert (state.incarnation, state.status) == (2, "running")
        assert await worker.call(Noted()) == [3]
        state = await tree.introspection.restart("Worker")
        assert (state.incarnation, state.status) == (3, "running")
        assert "restarted on request" in (state.last_exit or "")


@pytest.mark.parametrize(
    ("strategy", "expected"), [("one_for_one", "1 2 1"), ("rest_for_one", "1 2 2"), ("one_for_all", "2 2 2")]
)
async def test_restart_takes_along_those_that_would_fall_with_a_crash(strategy: str, expected: str) -> None:
    spec = SupervisorSpec("root", [ChildSpec(name, Counter) for name in "abc"], strategy=strategy, intensity=0)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        await tree.introspection.restart("b")
        assert " ".join(str(tree.introspection.state(name).incarnation) for name in "abc") == expected
        assert {tree.introspection.state(name).status for name in "abc"} == {"running"}


async def test_restart_of_a_child_that_is_stopped_or_cools_down_starts_it_now() -> None:
    spec = SupervisorSpec("root", [ChildSpec("a", Counter)], intensity=0, on_give_up=CoolDown(3600))
    async with open_tree(spec) as tree:
        tree.ref("a").cast(Fail())
        await eventually(lambda: tree.introspection.state("a").status == "cooling down")
        assert (await tree.introspection.restart("a")).status == "running"
        await tree.supervisor("root").terminate_child("a")
        assert (await tree.introspection.restart("a")).status == "running"
        assert await tree.ref("a").call(GetAll()) == []


async def test_restart_of_a_supervisor_restarts_all_below_it() -> None:
    spec = SupervisorSpec("root", [SupervisorSpec("below", [ChildSpec("a", Counter)])])
    async with open_tree(spec) as tree:
        await tree.introspection.restart("below")
        assert tree.introspection.state("a").incarnation == 2
        with pytest.raises(NoSuchActor, match="whole tree"):
            await tree.introspection.restart("root")


async def test_a_restart_that_fails_to_start_says_so_and_is_tried_again() -> None:
    gate = Gate()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))], intensity=5)
    async with open_tree(spec) as tree:
        gate.fail_next(ValueError("not now"))
        with pytest.raises(ChildStartFailed, match="not now"):
            await tree.introspection.restart("a")
        await eventually(lambda: tree.introspection.state("a").status == "running")


async def test_a_restart_whose_sibling_fails_to_start_is_not_said_to_be_done() -> None:
    gate = Gate()
    children = [ChildSpec("a", Counter), ChildSpec("b", lambda: GatedActor(gate))]
    async with open_tree(SupervisorSpec("root", children, strategy="one_for_all")) as tree:
        gate.fail_next(ValueError("not now"))
        with pytest.raises(ChildRestarting):
            await tree.introspection.restart("a")
        await eventually(lambda: tree.introspection.state("a").status == "running")


# ---------------------------------------------------------------- trace


async def test_a_trace_names_each_message_and_each_answer(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        worker = tree.ref("Worker")
        await worker.call(Add(0, 0))
        trace = EventLog(tree.stream, ["trace/Worker"])
        worker.cast(Note(1))
        assert await worker.call(Add(1, 2)) == 3
        with pytest.raises(CallFailed):
            await worker.call(Refuse())
        await trace.wait_for(event="failure")
        told = [{key: value for key, value in one.items() if key != "seconds"} for one in trace.topic("trace/Worker")]
        assert told == [
            {"event": "cast", "actor": "Worker", "message": "Note"},
            {"event": "call", "actor": "Worker", "message": "Add", "call": 1},
            {"event": "reply", "actor": "Worker", "message": "Add", "call": 1, "reply": "int"},
            {"event": "call", "actor": "Worker", "message": "Refuse", "call": 2},
            {"event": "failure", "actor": "Worker", "message": "Refuse", "call": 2, "error": "HandlerFailed"},
        ]


async def test_a_trace_goes_on_over_restarts_and_ends_with_its_subscription(child: ChildSpec) -> None:
    async with tree_of(child) as tree:
        worker = tree.ref("Worker")
        with tree.introspection.trace("Worker") as trace:
            worker.cast(Boom())
            await next_life(worker, 1)
            seen: list[str] = []
            with anyio.fail_after(5):
                while "WhoAreYou" not in seen:
                    seen.append((await anext(trace)).data["message"])
            assert seen[0] == "Boom"
        await worker.call(Add(1, 1))
        after = EventLog(tree.stream, ["trace/Worker"])
        tree.stream.publish("trace/Worker", {"event": "mark"})
        assert after.topic("trace/Worker") == [{"event": "mark"}]


async def test_a_trace_shows_batches_deferred_answers_and_downs() -> None:
    actor = Counter()
    async with open_tree(SupervisorSpec("root", [ChildSpec("peer", Counter), ChildSpec("a", lambda: actor)])) as tree:
        trace = EventLog(tree.stream, ["trace/a"])
        actor.context.monitor(tree.ref("peer"))
        first, second = (tree.ref("a").request(BatchedCall(value), timeout=5) for value in (1, 2))
        later = tree.ref("a").request(Defer(), timeout=5)
        await first
        await second
        tree.ref("peer").cast(Fail())
        await trace.wait_for(event="down", peer="peer")
        actor.tokens[0].send(5)
        await later
        told = [f"{one['event']} {one.get('call', '')}" for one in trace.topic("trace/a")]
        assert told == ["call 1", "call 2", "reply 1", "reply 2", "call 3", "down ", "reply 3"]


async def test_an_actor_that_nobody_traces_publishes_nothing_and_looks_for_nothing() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        with tree.introspection.trace("a"):
            await tree.ref("a").call(GetAll())
            assert actor.context.self_ref.cell.urgent
        await tree.ref("a").call(GetAll())
        await settle()
        assert not actor.context.self_ref.cell.urgent, "the loop is on its fast path again"


async def test_a_trace_of_nobody_is_refused() -> None:
    async with open_tree(one(Counter())) as tree:
        for name in ("nobody", "root"):
            with pytest.raises(NoSuchActor):
                tree.introspection.trace(name)


class Looked(Request[str], frozen=True):
    """What happens to one that looks into the tree from a process of its own."""


class FarAway(Actor):
    @on(Looked)
    async def _(self, message: Looked) -> str:
        try:
            self.context.introspection.state("root")
        except RuntimeError as error:
            return str(error)
        return "it could"


async def test_from_a_process_of_its_own_nobody_looks_into_the_tree() -> None:
    spec = ChildSpec("far", ProcessStart(f"{__name__}:FarAway"), isolation="process")
    async with tree_of(spec) as tree:
        assert "the tree lives in the daemon" in await tree.ref("far").call(Looked(), timeout=20)
