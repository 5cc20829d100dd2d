"""QueueManager in a real tree: a trainer that fails, dies or stops, and what that costs its file."""

from __future__ import annotations

import pytest

from protocol.home import Home
from protocol.messages.queue import (
    Claim,
    GetHistory,
    GetJob,
    GetQueue,
    JobPhase,
    JobRefused,
    Release,
    Stopping,
    Trained,
)
from protocol.messages.trainer import GateOpened
from supervisor.testing import eventually
from tests.actors.queue.hall import open_hall, with_queue
from tests.actors.queue.homes import (
    cursor,
    entry,
    get,
    open_book,
    stats,
    write_checkpoint,
)

pytestmark = pytest.mark.anyio


async def test_a_file_that_crashes_the_trainer_each_time_is_parked_after_three(home: Home) -> None:
    async with open_hall(home) as hall:
        bad = await hall.accept("bad.jsonl")
        for attempt in (1, 2, 3):
            await hall.accept(f"good{attempt}.jsonl", priority="low")
            job = await hall.begin()
            assert (job.id, job.attempt) == (bad.id, attempt)
            await hall.crash("TrainerActor", ValueError("row 3 is no good"))
            await eventually(lambda: hall.board.held is None)
            if attempt < 3:
                assert (home.line("low") / "bad.jsonl").exists()
                good = await hall.begin()
                assert good.file == f"good{attempt}.jsonl", "the next file trains"
                await hall.train(good)
        view = await hall.queue.call(GetJob(bad.id))
        assert (view.state, view.attempts, view.last_error) == ("failed", 3, "ValueError: row 3 is no good")
        assert "Traceback" in (home.failed / "bad.jsonl.error.json").read_text()
        assert (await hall.claim()).file == "good3.jsonl"


async def test_the_number_of_attempts_is_a_live_setting(home: Home) -> None:
    async with open_hall(home, with_queue(max_attempts=1)) as hall:
        await hall.accept("bad.jsonl")
        await hall.begin()
        await hall.crash("TrainerActor")
        await eventually(lambda: hall.board.queue.failed == 1)


async def test_a_crash_in_loading_counts_against_the_trainer_only(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        for _ in range(4):
            job = await hall.claim()
            assert job.attempt == 1
            hall.queue.cast(JobPhase(job.id, "loading"))
            await hall.crash("TrainerActor")


async def test_a_failure_after_progress_spends_no_attempt(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        for number in range(4):
            job = await hall.begin()
            assert job.attempt == 1
            await hall.commit(cursors={job.id: number + 1})
            await hall.crash("TrainerActor")
            await eventually(lambda: hall.board.held is None)
            assert (home.processing / "a.jsonl").exists(), "it resumes in place"
        await hall.begin()
        await hall.crash("TrainerActor")
        await eventually(lambda: hall.board.held is None)
        assert (await hall.claim()).attempt == 2


async def test_what_only_the_dead_trainer_knew_is_trained_again_first_and_in_order(home: Home) -> None:
    async with open_hall(home) as hall:
        for name in ("a", "b", "c"):
            await hall.accept(f"{name}.jsonl", priority="low")
        first = await hall.begin()
        await hall.queue.call(Trained(first.id, stats(2)))
        second = await hall.begin()
        await hall.accept("urgent.jsonl", priority="high")
        await hall.crash("TrainerActor", OSError("lost"))
        await eventually(lambda: hall.board.held is None)
        assert (await hall.claim()).id == first.id
        await hall.train(first)
        view = await hall.queue.call(GetJob(second.id))
        assert (view.state, view.attempts, view.priority) == ("queued", 1, "low")


async def test_a_commit_that_the_dead_trainer_could_not_tell_is_read_from_head(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        first = await hall.begin()
        await hall.queue.call(Trained(first.id, stats(2)))
        second = await hall.begin()
        book = open_book(home)
        rows = [get(book, first.id), get(book, second.id)]
        book.store.close()
        write_checkpoint(home, 7, (entry(rows[0]),), (cursor(rows[1], 1),))
        await hall.crash("TrainerActor")
        await eventually(lambda: hall.board.queue.done == 1)
        again = await hall.claim()
        assert (again.id, again.attempt) == (second.id, 1), "its progress rose: no attempt is spent"
        (row,) = await hall.queue.call(GetHistory())
        assert row.id == first.id


async def test_a_head_that_fell_back_is_believed_at_the_next_claim(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.train(job)
        assert hall.board.queue.done == 1
        write_checkpoint(home, 3)  # as a trainer does that found the newest one torn
        again = await hall.claim()
        assert again.id == job.id
        assert await hall.queue.call(GetHistory()) == []


async def test_a_job_that_can_never_be_trained_is_parked_at_once(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.queue.call(JobRefused(job.id, "no row of it can be trained on"))
        assert hall.board.held is None
        view = await hall.queue.call(GetJob(job.id))
        assert (view.state, view.attempts) == ("failed", 0)


async def test_a_stop_sends_the_file_back_ahead_of_its_line(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl", priority="low")
        await hall.accept("b.jsonl")
        await hall.train(await hall.begin())
        job = await hall.begin()
        await hall.queue.call(Release(job.id, "stop", stats(1)))
        await hall.accept("c.jsonl", priority="low")
        assert (home.line("low") / "a.jsonl").exists()
    async with open_hall(home) as hall:
        assert [view.file for view in await hall.queue.call(GetQueue())][-2:] == ["a.jsonl", "c.jsonl"]


async def test_a_stop_that_was_asked_for_makes_no_poison(home: Home) -> None:
    for number in range(4):
        async with open_hall(home) as hall:
            if number == 0:
                await hall.accept("a.jsonl")
            job = await hall.begin()
            await hall.queue.call(GetQueue())
            assert job.attempt == 1
    async with open_hall(home) as hall:
        assert hall.board.queue.failed == 0
        assert hall.board.queue.normal == 1


async def test_an_end_at_once_after_a_stop_was_asked_for_makes_no_poison(home: Home) -> None:
    """The home is looked at as the next daemon would find it if this one were gone now."""
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.queue.call(GetQueue())
        assert live_boot(home, job.id) is not None
        hall.board.stopping = "SIGTERM"
        await hall.queue.call(Stopping())
        assert live_boot(home, job.id) is None
        hall.queue.cast(JobPhase(job.id, "loading"))
        hall.queue.cast(JobPhase(job.id, "training"))
        await hall.queue.call(GetQueue())
        assert live_boot(home, job.id) is None, "what it still does is no reason to blame it"
        await hall.crash("QueueManager")
        hall.queue.cast(JobPhase(job.id, "loading"))
        hall.queue.cast(JobPhase(job.id, "training"))
        await hall.queue.call(GetQueue())
        assert live_boot(home, job.id) is None, "nor is it after a crash of this actor"


async def test_once_a_stop_was_asked_for_no_job_is_begun(home: Home) -> None:
    async with open_hall(home) as hall:
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        await hall.queue.call(GetQueue())
        hall.board.stopping = "SIGTERM"
        await hall.queue.call(Stopping())
        await hall.accept("a.jsonl")
        assert (await hall.no_claim()).reason == "stopping"
        assert (await waiting).job is None
        assert not hall.said(GateOpened)


def live_boot(home: Home, job: str) -> str | None:
    book = open_book(home)
    found = get(book, job).tally.live_boot
    book.store.close()
    return found
