"""QueueManager in a real tree: the trainer's side."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from protocol.home import Home
from protocol.messages.queue import (
    Cancel,
    Claim,
    ClaimReply,
    Committed,
    CommittedJob,
    DiskGate,
    GetHistory,
    GetJob,
    GetQueue,
    JobPhase,
    JobRefused,
    Pause,
    Published,
    Release,
    Resume,
    Skip,
    Stopping,
    Trained,
)
from protocol.messages.trainer import GateOpened, Yield
from supervisor import CallFailed, ChildStartFailed, HandlerFailed
from supervisor.testing import VirtualClock, eventually
from tests.actors.queue.hall import open_hall, with_queue
from tests.actors.queue.homes import (
    ROW,
    accept_message,
    cursor,
    entry,
    get,
    open_book,
    put,
    stats,
    write_checkpoint,
)

pytestmark = pytest.mark.anyio


async def test_a_file_is_accepted_claimed_trained_and_committed(home: Home) -> None:
    async with open_hall(home) as hall:
        accepted = await hall.accept("a.jsonl")
        assert (hall.board.queue.normal, hall.board.queue_ready) == (1, True)
        job = await hall.begin()
        assert (job.id, job.attempt, Path(job.path)) == (accepted.id, 1, home.processing / "a.jsonl")
        assert hall.board.held is not None
        assert hall.board.held.job == job.id
        await hall.queue.call(Trained(job.id, stats(2)))
        assert hall.board.held is None
        assert hall.board.queue.processing == 1, "it awaits its checkpoint"
        await hall.commit(job)
        told = Committed("step-00000001-0000000a", 1, (CommittedJob(job.id, stats(2)),), {})
        await hall.queue.call(told)  # telling it twice does no harm
        assert hall.board.queue.done == 1
        hall.queue.cast(Published(3, 1, (job.id,)))
        (row,) = await hall.queue.call(GetHistory())
        assert (row.outcome, row.version, row.interruptions) == ("trained", 3, 0)
        kinds = [data["event"] for data in hall.events.topic("queue")]
        assert kinds == ["accepted", "claimed", "trained", "committed"]


async def test_many_files_at_once_are_all_queued_in_order(home: Home) -> None:
    async with open_hall(home) as hall:
        paths = [put(home, f"{number:03d}.jsonl", ROW * (number + 1)) for number in range(120)]
        pending = [hall.queue.request(accept_message(path), timeout=60) for path in paths]
        ids = [(await one).id for one in pending]
        listed = await hall.queue.call(GetQueue())
        assert [view.id for view in listed] == ids
        assert len(list(home.line("normal").iterdir())) == 120


async def test_a_claim_waits_for_work(home: Home) -> None:
    async with open_hall(home) as hall:
        assert (await hall.no_claim()).reason == "empty"
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        accepted = await hall.accept("a.jsonl")
        reply = await waiting
        assert reply.job is not None
        assert reply.job.id == accepted.id
        assert not hall.said(GateOpened), "who waits need not be woken"


async def test_a_trainer_that_does_not_wait_is_woken(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await eventually(lambda: len(hall.said(GateOpened)) == 1)


async def test_a_claim_ends_the_one_before_it_and_its_own_time(home: Home) -> None:
    async with open_hall(home) as hall:
        first = hall.queue.request(Claim(wait_s=30), timeout=60)
        second = hall.queue.request(Claim(wait_s=0.05), timeout=60)
        for waiting in (first, second):
            reply = await waiting
            assert reply.none is not None
            assert reply.none.reason == "waited"


async def test_a_claim_that_nobody_waits_for_takes_no_job(home: Home) -> None:
    async with open_hall(home) as hall:
        gone = hall.queue.request(Claim(wait_s=30), timeout=60)
        await hall.queue.call(GetQueue())
        gone.cancel()
        await hall.accept("a.jsonl")
        assert hall.board.held is None
        assert hall.board.queue.normal == 1
        assert (await hall.claim()).file == "a.jsonl"


# ---------------------------------------------------------------- pause, skip, cancel


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


# ---------------------------------------------------------------- failures


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


# ---------------------------------------------------------------- the actor's own crash


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


# ---------------------------------------------------------------- device


async def test_who_holds_the_device_is_said_until_a_trainer_claims(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        hall.start_fails = OSError("held by PID 4711, PID 4712: killed, but the kernel has not let go of it")
        hall.tree.inject_fault("TrainerActor", ValueError("an injected fault"))
        await eventually(lambda: hall.board.gate.device == "device held by PID 4711, PID 4712")
        assert not hall.board.gate.open
        await hall.crash("QueueManager")
        assert hall.board.gate.device is not None, "the word outlives the actor's crash"
        hall.start_fails = None
        await eventually(lambda: hall.running("TrainerActor"))
        assert (await hall.claim()).attempt == 1
        assert hall.board.gate.device is None


async def test_another_reason_not_to_start_says_nothing_of_the_device(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        hall.start_fails = OSError("held by PID 4711: killed, but the kernel has not let go of it")
        hall.tree.inject_fault("TrainerActor", ValueError("an injected fault"))
        await eventually(lambda: hall.board.gate.device is not None)
        hall.start_fails = OSError("no such model")
        await eventually(lambda: hall.board.gate.device is None)


# ---------------------------------------------------------------- disk


async def test_nothing_is_handed_out_while_the_disk_is_full_and_no_attempt_is_spent(home: Home) -> None:
    async with open_hall(home) as hall:
        hall.queue.cast(DiskGate("under 10 GiB free"))
        await hall.accept("a.jsonl")
        assert (await hall.no_claim()).reason == "disk"
        assert hall.board.gate.disk == "under 10 GiB free"
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        await hall.crash("QueueManager")
        with pytest.raises(CallFailed):
            await waiting
        assert (await hall.no_claim()).reason == "disk", "the word outlives the actor's crash"
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        hall.queue.cast(DiskGate(None))
        with anyio.fail_after(10):
            reply = await waiting
        assert reply.job is not None
        assert reply.job.attempt == 1
