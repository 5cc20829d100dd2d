"""Calls, casts, mailboxes, and what becomes of all of them when the actor ends."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from protocol.messages.common import Request
from supervisor import (
    CallFailed,
    CallingSelf,
    CallTimeout,
    HandlerFailed,
    MailboxFull,
    NotRunning,
    Restarting,
    Stopping,
)
from supervisor.spec import RestartType
from supervisor.testing import EventLog, eventually
from tests.supervisor.conformance.kit import How, Kind, end
from tests.supervisor.process_actors import (
    Add,
    Ask,
    Batched,
    Boom,
    BoomCall,
    CallYourself,
    Hold,
    Let,
    LinkTo,
    Mirror,
    Note,
    NoteAndBoom,
    Noted,
    Point,
    Refuse,
    Send,
    Sleep,
    Tell,
    WhoAreYou,
)
from tests.supervisor.processes import next_life, task_child, tree_of, until

pytestmark = pytest.mark.anyio


class NotForWorkers(Request[int], frozen=True):
    """A message that no Worker handles."""


async def test_casts_are_handled_in_order_and_calls_are_answered_with_their_type(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker = tree.ref("Worker")
        for number in range(60):
            worker.cast(Note(number))
        assert await worker.call(Noted()) == list(range(60))
        assert await worker.call(Add(2, 3)) == 5
        assert await worker.call(Mirror(Point(1, 2))) == Point(2, 1)


async def test_a_refusal_is_an_answer(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        with pytest.raises(HandlerFailed, match="not today") as caught:
            await tree.ref("Worker").call(Refuse())
        assert caught.value.code == "later"
        assert (await tree.ref("Worker").call(WhoAreYou()))["incarnation"] == 1


async def test_a_message_of_an_unknown_type_is_refused_and_harms_nobody(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        with pytest.raises(HandlerFailed, match="NotForWorkers") as caught:
            await tree.ref("Worker").call(NotForWorkers())
        assert caught.value.code == "not_handled"
        tree.ref("Worker").cast(NotForWorkers())
        await until(lambda: tree.dead_letters == {"not handled": 1})
        assert (await tree.ref("Worker").call(WhoAreYou()))["incarnation"] == 1


async def test_a_reply_is_sent_later_and_dropped_after_its_deadline(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker = tree.ref("Worker")
        with pytest.raises(CallTimeout):
            await worker.call(Hold(), timeout=0.05)
        pending = worker.request(Hold(), timeout=5)
        worker.cast(Let("now"))
        assert await pending == "now"


@pytest.mark.parametrize(("restart", "error"), [("permanent", Restarting), ("temporary", Stopping)])
@pytest.mark.parametrize("how", ["crash", "normal"])
async def test_a_deferred_reply_dies_with_the_incarnation(
    kind: Kind, restart: RestartType, error: type[CallFailed], how: How
) -> None:
    async with tree_of(kind.child(restart=restart)) as tree:
        worker = tree.ref("Worker")
        pending = worker.request(Hold(), timeout=60)
        await worker.call(Noted())
        end(tree, "Worker", how)
        with anyio.fail_after(5), pytest.raises(error):
            await pending


async def test_the_call_in_hand_of_one_that_falls_with_a_linked_peer_fails_as_restarting(kind: Kind) -> None:
    async with tree_of(kind.child("Peer"), kind.child()) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        worker.cast(LinkTo("Peer"))
        in_hand = worker.request(Sleep(60), timeout=60)
        await steps.wait_for(sleeps=60)
        end(tree, "Peer")
        with anyio.fail_after(5), pytest.raises(Restarting):
            await in_hand
        assert (await next_life(worker, 1))["incarnation"] == 2


async def test_neighbours_come_as_a_batch(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker = tree.ref("Worker")
        blocked = worker.request(Sleep(0.1), timeout=5)
        pendings = [worker.request(Batched(), timeout=5) for _ in range(8)]
        await blocked
        assert [await pending for pending in pendings] == [8] * 8


async def test_calling_oneself_fails_at_once(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        log = EventLog(tree.stream)
        with anyio.fail_after(5), pytest.raises(HandlerFailed, match="Worker") as caught:
            await tree.ref("Worker").call(CallYourself(), timeout=60)
        assert caught.value.error_type == CallingSelf.__name__
        await log.wait_for(event="started", actor="Worker")


async def test_waiting_and_new_calls_fail_at_once_when_the_actor_ends_and_comes_back(kind: Kind) -> None:
    async with tree_of(kind.child(arguments={"stop_for": 60.0}, shutdown=60.0)) as tree:
        worker = tree.ref("Worker")
        in_hand = worker.request(BoomCall(), timeout=60)
        behind = worker.request(Add(1, 1), timeout=60)
        with anyio.fail_after(5):
            with pytest.raises(HandlerFailed, match="boom in a call"):
                await in_hand
            with pytest.raises(Restarting):
                await behind
            with pytest.raises(Restarting):
                await worker.call(Add(1, 1), timeout=60)
        tree.shorten_deadline(0)


async def test_queued_casts_survive_a_restart_in_order_and_the_one_in_hand_is_not_redelivered(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker = tree.ref("Worker")
        worker.cast(Boom())
        for number in range(50):  # more than the window of a link: some wait on either side of it
            worker.cast(Note(number))
        await next_life(worker, 1)
        assert await worker.call(Noted()) == list(range(50))
        assert (await worker.call(WhoAreYou()))["incarnation"] == 2


async def test_a_poison_message_is_handled_once_per_time_it_was_sent(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker, log = tree.ref("Worker"), EventLog(tree.stream)
        for number in range(3):
            worker.cast(Boom(f"poison {number}"))
            worker.cast(Note(number))
        await log.wait_for(event="started", actor="Worker", incarnation=4)
        assert await worker.call(Noted()) == [2], "each restart forgets what the one before had noted"
        assert len(log.topic("crashes")) == 3


async def test_what_an_actor_says_to_itself_survives_its_crash(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker = tree.ref("Worker")
        for number in (1, 2):
            worker.cast(NoteAndBoom(Note(number)))
            await next_life(worker, number)
            assert await worker.call(Noted()) == [number]


async def test_a_full_mailbox_refuses_casts_and_calls_at_once(kind: Kind) -> None:
    async with tree_of(kind.child(shutdown=0.2)) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        worker.request(Sleep(60), timeout=60)
        await steps.wait_for(sleeps=60)
        sent = 0
        with anyio.fail_after(5), pytest.raises(MailboxFull):
            while True:
                worker.cast(Note(sent))
                sent += 1
                await anyio.lowlevel.checkpoint()
        assert 64 <= sent <= 64 + 33, "its bound; of a process also the window of its link, and the one in hand"
        with anyio.fail_after(5), pytest.raises(MailboxFull):
            await worker.call(Add(1, 1), timeout=60)


async def test_a_send_to_a_full_mailbox_waits_for_room_and_keeps_the_order(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        worker.request(Sleep(0.2), timeout=5)
        await steps.wait_for(sleeps=0.2)
        with anyio.fail_after(5):
            for number in range(150):
                await worker.send(Note(number))
            await eventually(lambda: tree.view().children[0].mailbox == 0)  # a call does not wait for room
            assert await worker.call(Noted()) == list(range(150))


async def test_it_calls_casts_and_sends_to_others(kind: Kind) -> None:
    async with tree_of(task_child("Peer"), kind.child("first"), kind.child("second")) as tree:
        second = tree.ref("second")
        assert await second.call(Ask("Peer", 20, 22)) == 42
        assert await second.call(Ask("first", 1, 2)) == 3
        for number in range(5):
            second.cast(Tell("Peer", number))
        await second.call(Send("Peer", 5))
        assert await tree.ref("Peer").call(Noted()) == [0, 1, 2, 3, 4, 5]


async def test_its_call_to_nobody_fails_at_once_and_typed(kind: Kind) -> None:
    async with tree_of(kind.child(restart="temporary")) as tree:
        log = EventLog(tree.stream)
        with anyio.fail_after(5), pytest.raises(HandlerFailed) as caught:
            await tree.ref("Worker").call(Ask("Nobody", 1, 2))
        assert caught.value.error_type == NotRunning.__name__
        await log.wait_for(event="exited")
        assert log.topic("crashes")[0]["error"] == "NotRunning"
