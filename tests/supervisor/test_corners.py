"""What an actor, its context and its calls do in rare moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import anyio
import pytest

from protocol.messages.common import Message
from supervisor import (
    Actor,
    ChildSpec,
    HandlerFailed,
    Mailbox,
    MailboxFull,
    ProcessStart,
    Reason,
    Refused,
    Reply,
    SpecError,
    SupervisorSpec,
    on,
    on_batch,
    on_down,
    open_tree,
)
from supervisor.mailbox import Cell, Phase
from supervisor.registry import Registry
from supervisor.reply import Pending
from supervisor.testing import EventLog, VirtualClock, settle
from tests.supervisor.helpers import Batched, Counter, Defer, Fail, GetAll, Hold, Narrow, Put, StopYourself, one

pytestmark = pytest.mark.anyio


class Decline(Message, frozen=True):
    """Refused, by a handler that answers nobody."""


class _Declining(Counter):
    @on(Decline)
    async def _(self, message: Decline) -> None:
        raise Refused("not that", code="no")


async def test_a_refused_cast_is_a_dead_letter_and_no_crash() -> None:
    async with open_tree(one(_Declining())) as tree:
        tree.ref("a").cast(Decline())
        assert await tree.ref("a").call(GetAll()) == []
        assert tree.dead_letters == {"refused": 1}
        assert tree.view().children[0].restarts == 0


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MailboxFull("elsewhere"), MailboxFull("elsewhere")),
        (Refused("not today", code="closed"), HandlerFailed("Refused", "not today", code="closed")),
        (ValueError("odd"), HandlerFailed("ValueError", "odd")),
    ],
)
async def test_a_deferred_reply_may_be_an_error(error: Exception, wanted: Exception) -> None:
    """A failed call is passed on as it is; anything else is what its handler said."""
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        pending = tree.ref("a").request(Defer(), timeout=60)
        await settle()
        actor.tokens[0].fail(error)
        with pytest.raises(type(wanted)) as told:
            await pending
        assert str(told.value) == str(wanted)
        assert getattr(told.value, "code", None) == getattr(wanted, "code", None)
        tree.ref("a").cast(Defer())
        await settle()
        actor.tokens[1].fail(error)
        actor.tokens[1].send(1)
        assert actor.tokens[1].done, "nobody waits for it"
        assert actor.tokens[1].deadline == float("-inf")


class _NarrowBatches(Actor):
    mailbox: ClassVar[Mailbox] = Mailbox(bound=2)

    def __init__(self) -> None:
        self.hold = anyio.Event()
        self.batches: list[list[int]] = []

    @on(Hold)
    async def _(self, message: Hold) -> int:
        await self.hold.wait()
        return 1

    @on_batch(Batched, limit=9)
    async def _(self, batch: Sequence[tuple[Batched, Reply[int]]]) -> None:
        self.batches.append([message.value for message, _ in batch])


async def test_a_batch_makes_room_for_those_who_wait() -> None:
    """Casts take part in it, too; whoever waits for room is let in with each letter taken."""
    actor = _NarrowBatches()
    async with open_tree(one(actor)) as tree, anyio.create_task_group() as tasks:
        ref = tree.ref("a")
        ref.request(Hold(), timeout=60)
        await settle()
        for value in range(6):
            tasks.start_soon(ref.send, Batched(value))
            await settle()
        actor.hold.set()
        await settle()
        assert actor.batches == [[0, 1, 2, 3, 4, 5]]


def _cell(clock: VirtualClock) -> Cell:
    from protocol.backend import current_backend

    cell = Registry(clock, current_backend()).declare("a")
    cell.phase = Phase.RUNNING
    return cell


async def test_taking_letters_one_by_one() -> None:
    """As the link to a process does: calls that are done are passed over, and there is room for those who wait."""
    clock = VirtualClock()
    cell = _cell(clock)
    cell.configure(Mailbox(bound=2))
    gone, kept = (Pending("a", GetAll(), 60, cell.deadlines, cell.backend) for _ in range(2))
    cell.call(gone)
    cell.call(kept)
    async with anyio.create_task_group() as tasks:
        for value in range(2):
            tasks.start_soon(cell.send, Put(value))
            await settle()
        gone.cancel()
        await cell.arrival()
        assert [cell.take() for _ in range(3)] == [kept, Put(0), Put(1)]
    assert cell.take() is None
    assert cell.after_take is None
    kept.cancel()
    cell.urgent = True
    await cell.arrival()


async def test_an_actor_that_does_not_listen_hears_nothing_of_the_end_of_its_peer() -> None:
    class Deaf(Actor):
        async def on_start(self) -> None:
            self.context.monitor(self.context.ref("peer"))

        @on(GetAll)
        async def _(self, message: GetAll) -> list[int]:
            return [7]

    spec = SupervisorSpec("root", [ChildSpec("peer", Counter), ChildSpec("a", Deaf)])
    async with open_tree(spec) as tree:
        tree.ref("peer").cast(Fail())
        await settle()
        assert await tree.ref("a").call(GetAll()) == [7]


async def test_two_monitors_of_one_are_taken_off_one_by_one_and_one_that_is_none_harmlessly() -> None:
    actors: dict[str, Counter] = {}

    class Watching(Counter):
        async def on_start(self) -> None:
            actors[self.context.name] = self
            self.context.demonitor(self.context.ref("peer"))
            self.context.monitor(self.context.ref("peer"))

    spec = SupervisorSpec("root", [ChildSpec("peer", Counter), ChildSpec("a", Watching), ChildSpec("b", Watching)])
    async with open_tree(spec) as tree:
        for _ in range(2):
            actors["a"].context.demonitor(tree.ref("peer"))
        tree.ref("peer").cast(Fail())
        await settle()
        assert [len(actors[name].downs) for name in "ab"] == [0, 1]
        actors["b"].context.demonitor(tree.ref("peer"))
        tree.ref("peer").cast(Fail())
        await settle()
        assert len(actors["b"].downs) == 1


async def test_what_happens_to_peers_while_it_ends_changes_nothing() -> None:
    """Neither the end of a monitored actor nor that of a linked one."""
    log: list[str] = []

    class Ending(Counter):
        async def on_start(self) -> None:
            self.context.monitor(self.context.ref("peer"))
            self.context.link(self.context.ref("peer"))

        async def on_stop(self, reason: Reason) -> None:
            await self.hold.wait()
            log.append(str(reason))

        @on_down
        async def _(self, down: object) -> None:
            log.append("heard")

    ending = Ending()
    spec = SupervisorSpec("root", [ChildSpec("peer", Counter), ChildSpec("a", lambda: ending, restart="temporary")])
    async with open_tree(spec, clock=VirtualClock()) as tree:
        tree.ref("a").cast(StopYourself())
        await settle()
        tree.ref("peer").cast(Fail())
        await settle()
        ending.hold.set()
        await settle()
        assert log == ["normal"]


async def test_the_normal_end_of_the_one_that_linked_takes_no_peer_down() -> None:
    class Linked(Counter):
        async def on_start(self) -> None:
            self.context.link(self.context.ref("peer"))

    spec = SupervisorSpec("root", [ChildSpec("peer", Counter), ChildSpec("a", Linked, restart="temporary")])
    async with open_tree(spec) as tree:
        tree.ref("a").cast(StopYourself())
        await settle()
        assert tree.ref("peer").cell.incarnation == 1


async def test_a_link_to_a_supervisor_brings_it_down() -> None:
    class Linked(Counter):
        async def on_start(self) -> None:
            if self.context.incarnation == 1:
                self.context.link(self.context.ref("group"))

    group = SupervisorSpec("group", [ChildSpec("b", Counter)])
    spec = SupervisorSpec("root", [group, ChildSpec("a", Linked)], intensity=5)
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="group", incarnation=2)
        assert log.read(event="exited", actor="group")[0]["reason"] == "crash: ValueError: asked to"
        assert len(log.read(event="exited", actor="b")) == 1


async def test_a_summary_that_fails_says_so_and_a_beat_that_nobody_counts_is_nothing() -> None:
    class Muddled(Counter):
        def summary(self) -> dict[str, object]:
            self.context.beat("muddled")
            raise ValueError("where was I")

    async with open_tree(one(Muddled())) as tree:
        assert tree.introspection.state("a").summary == {"error": "where was I"}


async def test_whether_anybody_hears_a_topic() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        assert not actor.context.is_heard("steps")
        with tree.stream.subscribe(["steps"]):
            assert actor.context.is_heard("steps")


def test_an_environment_of_several_variables_is_taken() -> None:
    assert len(ProcessStart("module:Class", environment={"A": "1", "B": ""}).environment) == 2


def test_more_children_than_are_allowed_are_refused() -> None:
    SupervisorSpec("root", [ChildSpec("a", Counter)], max_children=1)
    with pytest.raises(SpecError, match="max_children is 1, and there are 2"):
        SupervisorSpec("root", [ChildSpec("a", Counter), ChildSpec("b", Narrow)], max_children=1)


class _Speaker(Counter):
    async def on_start(self) -> None:
        self.heard = [self.context.is_heard("state")]

    @on(Put)
    async def _(self, message: Put) -> None:
        self.heard.append(self.context.is_heard("state"))

    def summary(self) -> dict[str, object]:
        return {"heard": self.heard}


async def test_an_actor_knows_whether_anybody_hears_a_topic() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("speaker", _Speaker)])) as tree:
        with tree.stream.subscribe(["state"]):
            tree.ref("speaker").cast(Put(1))
            await settle()
        assert tree.introspection.state("speaker").summary == {"heard": [False, True]}
