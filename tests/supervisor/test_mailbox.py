from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio
import pytest

from supervisor import (
    ChildSpec,
    Mailbox,
    MailboxFull,
    Reply,
    Restarting,
    SpecError,
    SupervisorSpec,
    on_batch,
    open_tree,
)
from supervisor.testing import EventLog, Gate, eventually, settle
from tests.supervisor.helpers import (
    Batched,
    Counter,
    DroppingNewest,
    DroppingOldest,
    Fail,
    GetAll,
    Hold,
    Narrow,
    Put,
    Rejecting,
    one,
)

pytestmark = pytest.mark.anyio


async def _fill(actor: Counter, tree: object) -> None:
    """Keep the actor busy and put two messages behind it, which is all that these mailboxes hold."""
    ref = tree.ref("a")  # type: ignore[attr-defined]
    ref.request(Hold(), timeout=60)
    await settle()
    ref.cast(Put(1))
    ref.cast(Put(2))


@pytest.mark.parametrize("kind", [Narrow, Rejecting])
async def test_a_cast_to_a_full_mailbox_raises(kind: type[Counter]) -> None:
    actor = kind()
    async with open_tree(one(actor)) as tree:
        await _fill(actor, tree)
        with pytest.raises(MailboxFull):
            tree.ref("a").cast(Put(3))
        actor.hold.set()
        assert await _values(tree) == [1, 2]


async def test_send_waits_for_room_and_keeps_the_order() -> None:
    actor = Narrow()
    async with open_tree(one(actor)) as tree:
        await _fill(actor, tree)
        async with anyio.create_task_group() as tasks:
            for value in (3, 4, 5):
                tasks.start_soon(tree.ref("a").send, Put(value))
                await settle()
            assert actor.values == []
            actor.hold.set()
        assert await _values(tree) == [1, 2, 3, 4, 5]


async def test_a_cancelled_send_gives_its_turn_to_the_next() -> None:
    actor = Narrow()
    async with open_tree(one(actor)) as tree:
        await _fill(actor, tree)
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def send_first() -> None:
                with first:
                    await tree.ref("a").send(Put(3))

            tasks.start_soon(send_first)
            await settle()
            tasks.start_soon(tree.ref("a").send, Put(4))
            await settle()
            first.cancel()
            await settle()
            actor.hold.set()
        assert await _values(tree) == [1, 2, 4]


async def test_send_to_a_rejecting_mailbox_raises() -> None:
    actor = Rejecting()
    async with open_tree(one(actor)) as tree:
        await _fill(actor, tree)
        with pytest.raises(MailboxFull):
            await tree.ref("a").send(Put(3))
        actor.hold.set()


async def test_a_waiting_send_goes_on_to_become_a_dead_letter_when_the_actor_ends() -> None:
    actor = Narrow()
    async with open_tree(one(actor)) as tree:
        await _fill(actor, tree)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tree.ref("a").send, Put(3))
            await settle()
            tasks.start_soon(tree.supervisor("root").terminate_child, "a")
            await settle()
            actor.hold.set()
        assert sum(tree.dead_letters.values()) == 3


@pytest.mark.parametrize("kind", [Narrow, Rejecting, DroppingOldest, DroppingNewest])
async def test_calls_whose_callers_have_gone_take_no_room(kind: type[Counter]) -> None:
    actor = kind()
    async with open_tree(one(actor)) as tree:
        ref = tree.ref("a")
        ref.request(Hold(), timeout=60)
        await settle()
        ref.cast(Put(1))
        ref.request(GetAll(), timeout=60).cancel()
        ref.cast(Put(2))
        assert tree.view().children[0].mailbox == 2
        actor.hold.set()
        assert await _values(tree) == [1, 2]
    assert tree.dead_letters == {}


async def test_a_sender_that_waits_for_room_goes_before_who_finds_it() -> None:
    actor = Narrow()
    async with open_tree(one(actor)) as tree, anyio.create_task_group() as tasks:
        ref = tree.ref("a")
        ref.request(Hold(), timeout=60)
        await settle()
        ref.cast(Put(1))
        gone = ref.request(GetAll(), timeout=60)
        tasks.start_soon(ref.send, Put(2))
        await settle()
        gone.cancel()
        with pytest.raises(MailboxFull):
            ref.cast(Put(3))
        actor.hold.set()
        assert await _values(tree) == [1, 2]


async def test_dropping_the_oldest() -> None:
    actor = DroppingOldest()
    async with open_tree(one(actor)) as tree:
        ref = tree.ref("a")
        ref.request(Hold(), timeout=60)
        await settle()
        waiting = ref.request(GetAll(), timeout=60)
        for value in range(4):
            ref.cast(Put(value))
        with pytest.raises(MailboxFull):
            await waiting
        actor.hold.set()
        assert await _values(tree) == [2, 3]
        assert tree.dead_letters == {"mailbox full": 2}


async def test_dropping_the_oldest_for_a_call() -> None:
    actor = DroppingOldest()
    async with open_tree(one(actor)) as tree:
        await _fill(actor, tree)
        pending = tree.ref("a").request(GetAll(), timeout=60)
        actor.hold.set()
        assert await pending == [2]


async def test_dropping_the_newest() -> None:
    actor = DroppingNewest()
    async with open_tree(one(actor)) as tree:
        await _fill(actor, tree)
        tree.ref("a").cast(Put(3))
        with pytest.raises(MailboxFull):
            await tree.ref("a").call(GetAll(), timeout=60)
        actor.hold.set()
        assert await _values(tree) == [1, 2]
        assert tree.dead_letters == {"mailbox full": 1}


async def test_system_messages_go_first() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        log = EventLog(tree.stream)
        ref = tree.ref("a")
        held = ref.request(Hold(), timeout=60)
        await settle()
        for value in range(10):
            ref.cast(Put(value))
        tree.inject_fault("a", ValueError("first"))
        actor.hold.set()
        assert await held == 1
        await eventually(lambda: tree.view().children[0].restarts == 1)
        assert log.topic("crashes")[0]["mailbox"] == 10, "all casts still waited when the fault struck"
        assert await _values(tree) == list(range(10))


async def test_a_cancelled_wait_of_the_actor_loses_no_message() -> None:
    """agronholm/anyio#146 in our own mailbox: the restart cancels the waiting actor while messages arrive."""
    actor = Counter()
    async with open_tree(one(actor, restart="permanent")) as tree:
        for value in range(3):
            tree.inject_fault("a", ValueError("x"))
            tree.ref("a").cast(Put(value))
            await eventually(lambda value=value: tree.view().children[0].restarts == value + 1)  # type: ignore[misc]
        assert await _values(tree) == [0, 1, 2]


async def test_the_mailbox_stays_bounded_while_its_actor_restarts() -> None:
    gate = Gate()

    class Gated(Narrow):
        async def on_start(self) -> None:
            await gate.pass_start()

    actor = Gated()
    async with open_tree(one(actor)) as tree:
        gate.shut()
        tree.ref("a").cast(Fail())
        await settle()
        tree.ref("a").cast(Put(1))
        tree.ref("a").cast(Put(2))
        with pytest.raises(MailboxFull):
            tree.ref("a").cast(Put(3))
        with pytest.raises(Restarting):
            await tree.ref("a").call(GetAll())
        gate.open()
        await eventually(lambda: tree.view().children[0].status == "running")
        assert await _values(tree) == [1, 2]


async def test_casts_to_an_actor_that_the_boot_has_not_come_to_wait_for_it() -> None:
    class Early(Counter):
        async def on_start(self) -> None:
            self.context.ref("late").cast(Put(1))

    beside = [ChildSpec("early", Early), ChildSpec("late", lambda: late)]
    below = [ChildSpec("early", Early), SupervisorSpec("s", [SupervisorSpec("t", [ChildSpec("late", lambda: late)])])]
    for children in (beside, below):
        late = Counter()
        async with open_tree(SupervisorSpec("root", children)) as tree:
            assert await tree.ref("late").call(GetAll()) == [1]


async def test_a_poison_message_does_not_sit_at_the_head_for_ever() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        tree.ref("a").cast(Fail())
        tree.ref("a").cast(Put(1))
        await eventually(lambda: actor.values == [1])
        assert tree.view().children[0].restarts == 1


class _Interrupting(Narrow):
    """Says something to itself for each batch, as anybody might in that moment."""

    @on_batch(Batched)
    async def _(self, batch: Sequence[tuple[Batched, Reply[int]]]) -> None:
        for message, reply in batch:
            reply.send(message.value)
        with suppress(MailboxFull):
            self.context.ref("a").cast(Put(9))


async def test_the_room_of_a_call_that_was_given_up_goes_to_who_waits_for_room_also_beside_a_batch() -> None:
    actor = _Interrupting()
    async with open_tree(one(actor)) as tree, anyio.create_task_group() as tasks:
        ref = tree.ref("a")
        ref.request(Hold(), timeout=60)
        await settle()
        ref.request(Batched(1), timeout=60)
        given_up = ref.request(Batched(2), timeout=60)
        for value in (1, 2, 3):
            tasks.start_soon(ref.send, Put(value))
            await settle()
        given_up.cancel()
        actor.hold.set()
        assert await _values(tree) == [1, 2, 3]


@pytest.mark.parametrize("bad", [{"bound": 0}, {"bound": 1.5}, {"overflow": "explode"}])
def test_a_senseless_mailbox_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        Mailbox(**bad)  # type: ignore[arg-type]


async def _values(tree: object) -> list[int]:
    await settle()  # let the mailbox empty itself first
    values: list[int] = await tree.ref("a").call(GetAll())  # type: ignore[attr-defined]
    return values
