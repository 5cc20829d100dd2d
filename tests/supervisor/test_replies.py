"""Deferred replies and batches: a token answers once, later, and dies with its incarnation, deadline or caller."""

import anyio
import anyio.lowlevel
import pytest

from supervisor import (
    CallTimeout,
    Restarting,
    open_tree,
)
from supervisor.testing import VirtualClock, settle
from tests.supervisor.helpers import (
    Batched,
    Counter,
    Defer,
    Fail,
    GetAll,
    Hold,
    Incarnation,
    Put,
    one,
)

pytestmark = pytest.mark.anyio


async def test_a_deferred_reply_comes_later_and_once() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        first = tree.ref("a").request(Defer(), timeout=5)
        assert await tree.ref("a").call(GetAll()) == [], "the handler has returned and the actor goes on"
        (token,) = actor.tokens
        assert not token.done
        token.send(7)
        token.send(8)
        assert token.done
        assert await first == 7


async def test_a_deferred_reply_dies_with_the_incarnation() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        pending = tree.ref("a").request(Defer(), timeout=5)
        await settle()
        tree.ref("a").cast(Fail())
        with pytest.raises(Restarting):
            await pending
        assert actor.tokens[0].done


async def test_a_deferred_reply_dies_with_its_deadline() -> None:
    actor, clock = Counter(), VirtualClock()
    async with open_tree(one(actor), clock=clock) as tree:
        pending = tree.ref("a").request(Defer(), timeout=5)
        await settle()
        assert actor.tokens[0].deadline == 5.0
        await clock.advance(4.999)
        assert not actor.tokens[0].done
        await clock.advance(0.001)
        assert actor.tokens[0].done
        with pytest.raises(CallTimeout):
            await pending
        actor.tokens[0].send(1)
        assert await tree.ref("a").call(Incarnation()) == 1, "a late reply reaches no later call"


async def test_a_deferred_reply_dies_with_its_caller() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tree.ref("a").call, Defer())
            await settle()
            assert not actor.tokens[0].done
            tasks.cancel_scope.cancel()
        assert actor.tokens[0].done


async def test_a_batch_takes_the_neighbours_of_its_kind_and_replies_stay_per_message() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        ref = tree.ref("a")
        pending = [ref.request(Batched(value), timeout=5) for value in range(4)]
        ref.cast(Put(1))
        pending += [ref.request(Batched(value), timeout=5) for value in (4, 5)]
        given_up = ref.request(Batched(99), timeout=5)
        given_up.cancel()
        assert [await one for one in pending] == [0, 1, 2, 3, 4, 5]
        assert actor.batches == [3, 1, 2]


async def test_a_token_of_a_cast_request_is_done_from_the_beginning() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        tree.ref("a").cast(Defer())
        await settle()
        assert actor.tokens[0].done
        actor.tokens[0].send(1)


async def test_a_request_without_waiting_is_awaited_or_called_back() -> None:
    async with open_tree(one(Counter())) as tree:
        seen: list[int] = []
        pending = tree.ref("a").request(Incarnation(), timeout=5)
        pending.on_done(lambda done: seen.append(done.result()))
        assert await pending == 1
        assert seen == [1]
        pending.on_done(lambda done: seen.append(2))
        assert seen == [1, 2], "a callback on a call that is done comes at once"


async def test_only_one_task_may_await_a_call() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree, anyio.create_task_group() as tasks:
        pending = tree.ref("a").request(Hold(), timeout=60)

        async def wait() -> None:
            assert await pending == 1

        tasks.start_soon(wait)
        await settle()
        with pytest.raises(RuntimeError, match="another task"):
            await pending
        actor.hold.set()


async def test_the_result_of_a_call_that_is_not_done_is_an_error() -> None:
    actor = Counter()
    async with open_tree(one(actor)) as tree:
        pending = tree.ref("a").request(Hold(), timeout=60)
        with pytest.raises(RuntimeError, match="not done"):
            pending.result()
        actor.hold.set()
