from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from protocol.messages.common import Message, Request
from supervisor import (
    Actor,
    CallFailed,
    CallingSelf,
    CallTimeout,
    ChildSpec,
    HandlerFailed,
    MailboxFull,
    NotRunning,
    Refused,
    Reply,
    Restarting,
    Stopping,
    SupervisorSpec,
    on,
    on_deferred,
    open_tree,
)
from supervisor.testing import Gate, GatedActor, VirtualClock, eventually, settle
from tests.supervisor.helpers import (
    Counter,
    Defer,
    Fail,
    FailCall,
    GetAll,
    Hold,
    Incarnation,
    Narrow,
    Put,
    Refuse,
    StopYourself,
    one,
)

pytestmark = pytest.mark.anyio


async def test_casts_are_handled_in_order_and_calls_are_answered() -> None:
    async with open_tree(one(Counter())) as tree:
        ref = tree.ref("a")
        for value in range(500):
            ref.cast(Put(value))
        assert await ref.call(GetAll()) == list(range(500))


async def test_a_callback_that_fails_harms_neither_the_actor_nor_the_other_callbacks() -> None:
    def fail(_: object) -> None:
        raise KeyError("the caller's own fault")

    async with open_tree(one(Counter())) as tree:
        pending = tree.ref("a").request(Incarnation(), timeout=60)
        seen: list[int] = []
        pending.on_done(fail)
        pending.on_done(lambda done: seen.append(done.result()))
        assert await pending == 1
        assert seen == [1]
        assert await tree.ref("a").call(Incarnation()) == 1


async def test_trying_again_and_again_starves_nobody() -> None:
    """A call that fails at once still lets the restart happen that its caller waits for."""
    async with open_tree(one(Counter())) as tree:
        ref, tries = tree.ref("a"), 0
        with pytest.raises(HandlerFailed):
            await ref.call(FailCall())
        while tries < 1000:
            tries += 1
            try:
                assert await ref.call(Incarnation()) == 2
                break
            except Restarting:
                continue
        assert tries < 1000
        others = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_set, others)
            for _ in range(1000):
                await tree.ref("nobody").send(Put(1))
                if others.is_set():
                    break
        assert tree.dead_letters["not running"] < 1000


async def _set(event: anyio.Event) -> None:
    event.set()


async def test_a_refusal_is_an_answer_and_no_crash() -> None:
    async with open_tree(one(Counter())) as tree:
        with pytest.raises(HandlerFailed) as caught:
            await tree.ref("a").call(Refuse())
        assert (caught.value.code, caught.value.text) == ("closed", "not today")
        assert await tree.ref("a").call(Incarnation()) == 1


async def test_a_crashing_handler_answers_its_caller_with_the_error_and_the_traceback() -> None:
    async with open_tree(one(Counter())) as tree:
        with pytest.raises(HandlerFailed) as caught:
            await tree.ref("a").call(FailCall("oh"))
        assert caught.value.error_type == "ValueError"
        assert caught.value.text == "oh"
        assert "helpers.py" in caught.value.traceback
        assert caught.value.code is None


async def test_a_crash_by_the_error_of_another_call_is_no_error_of_this_call() -> None:
    """Else the caller would be told that the actor it asked does not run, and that nothing was done."""

    class Relay(Counter):
        @on(GetAll)
        async def _(self, message: GetAll) -> list[int]:
            return await self.context.ref("nobody").call(GetAll())

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Relay)])) as tree:
        with pytest.raises(HandlerFailed, match="nobody is not running") as caught:
            await tree.ref("a").call(GetAll())
        assert caught.value.error_type == "NotRunning"


async def test_a_refusal_out_of_a_task_group_is_a_refusal() -> None:
    async def refuse() -> None:
        raise Refused("not today", code="closed")

    class Grouping(Counter):
        @on(Refuse)
        async def _(self, message: Refuse) -> int:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(refuse)
            return 1

        @on_deferred(Defer)
        async def _(self, message: Defer, reply: Reply[int]) -> None:
            raise ExceptionGroup("both", [Refused("not today"), KeyError("that too")])

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Grouping)])) as tree:
        with pytest.raises(HandlerFailed) as caught:
            await tree.ref("a").call(Refuse())
        assert (caught.value.code, caught.value.text) == ("closed", "not today")
        assert await tree.ref("a").call(Incarnation()) == 1
        with pytest.raises(HandlerFailed) as caught:
            await tree.ref("a").call(Defer())
        assert (caught.value.code, caught.value.error_type) == (None, "ExceptionGroup"), "half an error is an error"


async def test_a_message_that_nobody_handles_harms_nobody() -> None:
    class Unknown(Request[int], frozen=True):
        pass

    class UnknownCast(Message, frozen=True):
        pass

    async with open_tree(one(Counter())) as tree:
        with pytest.raises(HandlerFailed) as caught:
            await tree.ref("a").call(Unknown())
        assert caught.value.code == "not_handled"
        tree.ref("a").cast(UnknownCast())
        assert await tree.ref("a").call(Incarnation()) == 1
        assert tree.dead_letters == {"not handled": 1}


class _Selfish(Actor):
    def __init__(self) -> None:
        self.errors: list[CallFailed] = []
        self.spawned: int | None = None

    @on(GetAll)
    async def _(self, message: GetAll) -> list[int]:
        for ask in (self.context.self_ref.call, self.context.self_ref.request):
            try:
                await ask(GetAll(), timeout=60)
            except CallingSelf as error:
                self.errors.append(error)
        self.context.spawn(self._beside)
        return []

    @on(Incarnation)
    async def _(self, message: Incarnation) -> int:
        return self.context.incarnation

    async def _beside(self) -> None:
        self.spawned = await self.context.self_ref.call(Incarnation())


async def test_calling_oneself_fails_at_once_but_a_spawned_task_may() -> None:
    actor = _Selfish()
    async with open_tree(one(actor)) as tree:
        await tree.ref("a").call(GetAll())
        assert len(actor.errors) == 2
        await eventually(lambda: actor.spawned == 1)


async def test_calls_to_names_that_do_not_run_fail_at_once() -> None:
    async with open_tree(one(Counter(), restart="transient")) as tree:
        with pytest.raises(NotRunning):
            await tree.ref("nobody").call(GetAll(), timeout=60)
        ref = tree.ref("a")
        ref.cast(StopYourself())
        await settle()
        with pytest.raises(NotRunning):
            await ref.call(GetAll(), timeout=60)
        ref.cast(Put(1))
        assert tree.dead_letters == {"not running": 1}
    with pytest.raises(NotRunning):
        await ref.call(GetAll(), timeout=60)


async def test_calls_waiting_and_new_ones_fail_at_once_when_the_actor_restarts_and_casts_are_kept_in_order() -> None:
    gate, actors = Gate(), list[Counter]()

    class Gated(Counter):
        async def on_start(self) -> None:
            await gate.pass_start()

    def make() -> Counter:
        actors.append(Gated())
        return actors[-1]

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", make)])) as tree:
        ref = tree.ref("a")
        gate.shut()
        ref.cast(Put(0))
        ref.cast(Fail())
        ref.cast(Put(1))
        waiting = ref.request(GetAll(), timeout=60)
        ref.cast(Put(2))
        await settle()
        with pytest.raises(Restarting):
            await waiting
        with pytest.raises(Restarting):
            await ref.call(GetAll(), timeout=60)
        ref.cast(Put(3))
        gate.open()
        await eventually(lambda: tree.view().children[0].status == "running")
        assert await ref.call(GetAll()) == [1, 2, 3], "the message in hand is not handled again, the others are"
        assert actors[0].values == [0]
        assert tree.dead_letters == {}


async def test_calls_to_a_stopping_actor_fail_at_once_and_casts_become_dead_letters() -> None:
    gate = Gate()
    async with open_tree(one(GatedActor(gate), restart="transient")) as tree:
        ref = tree.ref("a")
        gate.hold_stop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tree.supervisor("root").terminate_child, "a")
            await settle()
            with pytest.raises(Stopping):
                await ref.call(GetAll(), timeout=60)
            ref.cast(Put(1))
            gate.stop_gate.set()
        assert tree.dead_letters == {"stopping": 1}


async def test_what_is_left_at_a_permanent_stop_becomes_dead_letters() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        ref = tree.ref("a")
        held = ref.request(Hold(), timeout=60)
        await settle()
        ref.cast(Put(1))
        ref.cast(Put(2))
        waiting = ref.request(GetAll(), timeout=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tree.supervisor("root").terminate_child, "a")
            await settle()
            with pytest.raises(Stopping):
                await waiting
            actor.hold.set()
        assert await held == 1, "the message in hand is finished before the actor stops"
        assert tree.dead_letters == {"not running": 2}


async def test_a_call_times_out_with_the_outcome_unknown() -> None:
    actor, clock = Counter(), VirtualClock()
    async with open_tree(one(actor), clock=clock) as tree, anyio.create_task_group() as tasks:
        errors: list[CallFailed] = []

        async def ask() -> None:
            try:
                await tree.ref("a").call(Hold(), timeout=3)
            except CallFailed as error:
                errors.append(error)

        tasks.start_soon(ask)
        await settle()
        await clock.advance(3)
        assert [type(error) for error in errors] == [CallTimeout]
        actor.hold.set()


async def test_cancelling_a_waiting_call_leaves_the_actor_undisturbed() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        with anyio.move_on_after(0.01) as scope:
            await tree.ref("a").call(Hold(), timeout=60)
        assert scope.cancelled_caught
        actor.hold.set()
        assert await tree.ref("a").call(Incarnation()) == 1


async def test_an_actor_that_never_waits_does_not_starve_the_others() -> None:
    class Endless(Counter):
        @on(Put)
        async def _(self, message: Put) -> None:
            if message.value:
                self.context.self_ref.cast(message)

    async with open_tree(one(Endless())) as tree:
        tree.ref("a").cast(Put(1))
        with anyio.fail_after(5):
            for _ in range(10):  # turns of the event loop: with a starved one not even the time limit would be heard
                await anyio.lowlevel.checkpoint()


def test_a_message_type_has_one_handler_in_a_class() -> None:
    with pytest.raises(TypeError, match="handled twice"):

        class _Twice(Actor):
            @on(GetAll)
            async def _(self, message: GetAll) -> list[int]:
                return []

            @on(GetAll)
            async def _(self, message: GetAll) -> list[int]:
                return [2]


def test_a_handler_of_another_message_than_it_takes_is_refused() -> None:
    with pytest.raises(TypeError, match="a handler of GetAll takes a Put"):

        class _Wrong(Actor):
            @on(GetAll)
            async def _(self, message: Put) -> list[int]:
                return []


def test_handlers_are_inherited_and_overridden() -> None:
    class Base(Actor):
        @on(Incarnation)
        async def _(self, message: Incarnation) -> int:
            return 1

        @on(GetAll)
        async def _(self, message: GetAll) -> list[int]:
            return []

    class Derived(Base):
        @on(GetAll)
        async def _(self, message: GetAll) -> list[int]:
            return [1]

    assert set(Derived.__handlers__) == {Incarnation, GetAll}
    assert Derived.__handlers__[GetAll] is not Base.__handlers__[GetAll]
    assert Derived.__handlers__[Incarnation] is Base.__handlers__[Incarnation]


async def test_full_mailbox_fails_a_call_at_once() -> None:
    actor = Narrow()
    async with open_tree(one(actor)) as tree:
        ref = tree.ref("a")
        ref.request(Hold(), timeout=60)
        await settle()
        ref.cast(Put(1))
        ref.cast(Put(2))
        with pytest.raises(MailboxFull):
            await ref.call(GetAll(), timeout=60)
        actor.hold.set()
