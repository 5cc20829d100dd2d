"""QueueManager itself crashes, and its trainer with it or not."""

from __future__ import annotations

import pytest

from protocol.home import Home
from protocol.messages.queue import (
    GetJob,
    GetQueue,
    Trained,
)
from supervisor import ChildStartFailed
from supervisor.testing import eventually
from tests.actors.queue.hall import open_hall
from tests.actors.queue.homes import (
    stats,
)

pytestmark = pytest.mark.anyio


async def test_the_crash_of_queue_manager_does_not_disturb_the_trainer(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        job = await hall.begin()
        held = hall.board.held
        await hall.crash("QueueManager")
        assert hall.board.held == held
        assert (home.processing / "a.jsonl").exists(), "not taken from under the trainer"
        assert hall.board.queue_ready
        assert hall.tree.ref("TrainerActor").cell.incarnation == 1
        await hall.train(job)
        assert (await hall.claim()).file == "b.jsonl"


async def test_a_trainer_that_dies_after_the_managers_crash_is_still_noticed(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.queue.call(GetQueue())
        await hall.crash("QueueManager")
        await hall.crash("TrainerActor")
        await eventually(lambda: hall.board.held is None)
        assert (await hall.queue.call(GetJob(job.id))).attempts == 1


async def test_a_trainer_that_dies_unheard_leaves_nothing_behind(home: Home) -> None:
    """It dies while this actor is down too, and holds no job: only trained ones that its memory alone knew."""
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.queue.call(Trained(job.id, stats(2)))
        core = hall.tree.supervisor("core")
        await core.terminate_child("QueueManager")
        await hall.crash("TrainerActor")
        await core.restart_child("QueueManager")
        assert (await hall.claim()).id == job.id


async def test_a_trainer_that_lives_keeps_what_it_has_trained(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.queue.call(Trained(job.id, stats(2)))
        await hall.crash("QueueManager")
        assert (await hall.no_claim()).reason == "empty", "it is in the trainer's memory: twice would be too often"
        await hall.commit(job)
        assert hall.board.queue.done == 1


async def test_a_database_damaged_under_a_running_trainer_is_not_rebuilt(home: Home) -> None:
    """A rebuilt queue would know the running file by another id, and have it trained twice."""
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.begin()
        await hall.queue.call(GetQueue())
        core = hall.tree.supervisor("core")
        await core.terminate_child("QueueManager")
        for path in home.root.glob("state.sqlite3*"):
            path.write_bytes(b"no database")
        with pytest.raises(ChildStartFailed):
            await core.restart_child("QueueManager")
        assert "stokehold stop, then run" in str(hall.board.troubles["QueueManager"])
        assert (home.processing / "a.jsonl").exists()
    async with open_hall(home) as hall:
        assert (await hall.claim()).file == "a.jsonl"


async def test_a_lost_answer_to_a_claim_is_given_again(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        first = await hall.claim()
        assert (await hall.claim()) == first
