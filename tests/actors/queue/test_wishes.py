"""QueueManager in a real tree: pause, skip and cancel, and what becomes of a wish when the trainer dies."""

from __future__ import annotations

import pytest

from protocol.home import Home
from protocol.messages.queue import (
    Cancel,
    Claim,
    ClaimReply,
    GetHistory,
    GetJob,
    GetQueue,
    Pause,
    Release,
    Resume,
    Skip,
    Trained,
)
from protocol.messages.trainer import Yield
from supervisor import HandlerFailed
from supervisor.testing import VirtualClock, eventually
from tests.actors.queue.hall import open_hall
from tests.actors.queue.homes import (
    stats,
)

pytestmark = pytest.mark.anyio


async def test_a_pause_with_nothing_running_is_durable_at_once(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.queue.call(Pause(release=True))
        none = await hall.no_claim()
        assert (none.reason, none.release_device) == ("paused", True)
    async with open_hall(home) as hall:
        assert hall.board.gate.paused, "a pause outlives the daemon"
        assert (await hall.no_claim()).reason == "paused"
        await hall.queue.call(Resume())
        assert (await hall.claim()).file == "a.jsonl"


async def test_a_pause_is_answered_when_the_trainer_has_let_go(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl", priority="high")
        low = await hall.begin()
        assert low.file == "b.jsonl"
        pausing = hall.queue.request(Pause(), timeout=60)
        await eventually(lambda: hall.said(Yield) == [Yield(low.id, "pause")])
        await hall.queue.call(GetQueue())
        assert not pausing.done, "nothing is durable yet"
        await hall.queue.call(Release(low.id, "pause", stats(1)))
        await pausing
        assert hall.board.held is None
        assert (home.processing / "b.jsonl").exists(), "it waits in place"
        await hall.accept("c.jsonl", priority="high")
        await hall.queue.call(Resume())
        assert (await hall.claim()).id == low.id


async def test_a_pause_is_answered_when_the_file_ends_or_the_trainer_dies(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        pausing = hall.queue.request(Pause(), timeout=60)
        await hall.queue.call(Trained(job.id, stats(2)))
        await pausing
        await hall.queue.call(Resume())
        await hall.accept("b.jsonl")
        await hall.begin()
        pausing = hall.queue.request(Pause(), timeout=60)
        await hall.queue.call(GetQueue())
        await hall.crash("TrainerActor")
        await pausing
        assert hall.board.held is None


async def test_a_waiting_claim_learns_that_the_device_is_wanted_back(home: Home) -> None:
    async with open_hall(home) as hall:
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        await hall.queue.call(Pause(release=True))
        reply: ClaimReply = await waiting
        assert reply.none is not None
        assert reply.none.release_device


async def test_a_claim_waits_through_a_pause_that_let_go_of_the_device(home: Home) -> None:
    """Answered at once, the trainer would ask again at once, for as long as the pause lasts."""
    clock = VirtualClock()
    async with open_hall(home, clock=clock) as hall:
        await hall.queue.call(Pause(release=True))
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        await hall.queue.call(GetQueue())
        assert not waiting.done
        await clock.advance(30)
        reply: ClaimReply = await waiting
        assert reply.none is not None
        assert (reply.none.reason, reply.none.release_device) == ("paused", True)


async def test_skip_sends_the_running_file_to_the_end_of_low(home: Home) -> None:
    async with open_hall(home) as hall:
        with pytest.raises(HandlerFailed) as refused:
            await hall.queue.call(Skip())
        assert refused.value.code == "nothing_to_skip"
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl", priority="low")
        job = await hall.begin()
        skipping = hall.queue.request(Skip(), timeout=60)
        await eventually(lambda: hall.said(Yield) == [Yield(job.id, "skip")])
        await hall.queue.call(Release(job.id, "skip", stats(1)))
        await skipping
        assert (home.line("low") / "a.jsonl").exists()
        assert [view.file for view in await hall.queue.call(GetQueue())] == ["b.jsonl", "a.jsonl"]
        assert (await hall.queue.call(GetJob(job.id))).attempts == 0


async def test_a_file_that_ends_first_cannot_be_skipped_or_cancelled(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        asked = [hall.queue.request(Skip(), timeout=60), hall.queue.request(Cancel(job.id), timeout=60)]
        await hall.queue.call(Trained(job.id, stats(2)))
        for one in asked:
            with pytest.raises(HandlerFailed) as refused:
                await one
            assert refused.value.code == "wrong_state"
        assert hall.board.queue.processing == 1


async def test_a_running_file_is_cancelled_at_its_next_step(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        cancelling = hall.queue.request(Cancel("a.jsonl"), timeout=60)
        await eventually(lambda: hall.said(Yield) == [Yield(job.id, "cancel")])
        await hall.queue.call(Release(job.id, "cancel", stats(1)))
        await cancelling
        (row,) = await hall.queue.call(GetHistory())
        assert (row.outcome, row.samples) == ("cancelled", 1)
        assert not list(home.processing.iterdir())


async def test_a_wish_of_people_is_kept_when_the_trainer_dies_first(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.claim()
        cancelling = hall.queue.request(Cancel(job.id), timeout=60)
        await hall.queue.call(GetQueue())
        await hall.crash("TrainerActor")
        await cancelling
        assert (await hall.no_claim()).reason == "empty"
