"""QueueManager in a real tree: people, hands in the folders, and damage."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from actors.queue.manager import QueueManager
from actors.queue.office import enlist
from actors.settings_store import ConfigStore
from protocol.config import Config, InboxSection
from protocol.home import Home
from protocol.messages.common import Request
from protocol.messages.queue import (
    Accept,
    Cancel,
    Claim,
    GetHistory,
    GetJob,
    GetQueue,
    HistoryEntry,
    JobRefused,
    Move,
    Pause,
    Release,
    Retry,
    StopAfterFile,
    WaitAccepted,
    WaitFinished,
)
from supervisor import ChildSpec, Disk, HandlerFailed, ProcessStart, SupervisorSpec, open_tree
from supervisor.testing import eventually
from tests.actors.queue.hall import CONFIG, Hall, open_hall
from tests.actors.queue.homes import ROW, accept_message, put, stats

pytestmark = pytest.mark.anyio

SUBMITTED = "01arz3ndektsv4rrffq69g5fav"


async def refusal(hall: Hall, request: Request[object]) -> str | None:
    """Return the code with which the request is refused; the actor must live on."""
    with pytest.raises(HandlerFailed) as refused:
        await hall.queue.call(request)
    assert hall.queue.cell.incarnation == 1
    return refused.value.code


def submitted(home: Home, name: str = "a.jsonl") -> Accept:
    return accept_message(put(home, name, ROW), submit_id=SUBMITTED)


# ---------------------------------------------------------------- waiting for something to happen


async def test_who_waits_for_a_submitted_file_is_told_when_it_is_accepted(home: Home) -> None:
    async with open_hall(home) as hall:
        early = hall.queue.request(WaitAccepted(SUBMITTED), timeout=60)
        await hall.queue.call(GetQueue())
        await hall.queue.call(submitted(home))
        late = await hall.queue.call(WaitAccepted(SUBMITTED))
        assert (await early).id == late.id == SUBMITTED
        await hall.queue.call(Cancel(SUBMITTED))
        assert (await hall.queue.call(WaitAccepted(SUBMITTED))).id == SUBMITTED


async def test_who_waits_for_the_end_of_a_job_is_told_how_it_ended(home: Home) -> None:
    async with open_hall(home) as hall:
        ends: dict[str, HistoryEntry] = {}
        for name in ("trained", "cancelled", "failed"):
            accepted = await hall.accept(f"{name}.jsonl")
            waiting = hall.queue.request(WaitFinished(accepted.id[:-2]), timeout=60)
            job = await hall.begin()
            if name == "trained":
                await hall.train(job)
            elif name == "cancelled":
                cancelling = hall.queue.request(Cancel(job.id), timeout=60)
                await hall.queue.call(Release(job.id, "cancel", stats(1)))
                await cancelling
            else:
                for _ in range(3):
                    await hall.crash("TrainerActor")
                    await eventually(lambda: hall.board.held is None)
                    if not waiting.done:
                        await hall.begin()
            ends[name] = await waiting
            assert (await hall.queue.call(WaitFinished(accepted.id))) == ends[name], "asked afterwards"
        assert {name: end.outcome for name, end in ends.items()} == {name: name for name in ends}
        assert await refusal(hall, WaitFinished("nobody")) == "unknown_job"


# ---------------------------------------------------------------- one job


async def test_questions_about_jobs_that_are_unknown_or_ambiguous_are_refused(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("same.jsonl")
        await hall.accept("same.jsonl", ROW * 2)
        for request in (GetJob("nobody"), Retry("nobody"), Cancel("nobody"), Move("nobody", "low"), GetJob("")):
            assert await refusal(hall, request) == "unknown_job"
        assert await refusal(hall, Cancel("same.jsonl")) == "ambiguous_job"
        first = (await hall.queue.call(GetQueue()))[0]
        await hall.queue.call(Cancel(first.id))
        assert (await hall.queue.call(GetJob("same.jsonl"))).id != first.id, "now only one fits"


async def test_what_a_job_is_in_no_state_for_is_refused(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        assert await refusal(hall, Retry("a.jsonl")) == "wrong_state"
        job = await hall.begin()
        assert await refusal(hall, Move("a.jsonl", "low")) == "wrong_state"
        await hall.train(job)
        assert await refusal(hall, Cancel("a.jsonl")) == "wrong_state"
        assert await refusal(hall, Move("a.jsonl", "low")) == "wrong_state"


async def test_moving_puts_a_job_at_the_end_of_another_line(home: Home) -> None:
    async with open_hall(home) as hall:
        for name in ("a", "b", "c"):
            await hall.accept(f"{name}.jsonl")
        await hall.queue.call(Move("c.jsonl", "high"))
        await hall.queue.call(Move("a.jsonl", "normal"))
        assert [view.file for view in await hall.queue.call(GetQueue())] == ["c.jsonl", "b.jsonl", "a.jsonl"]
        assert (home.line("high") / "c.jsonl").exists()


async def test_a_retried_job_is_offered_to_the_trainer(home: Home) -> None:
    async with open_hall(home) as hall:
        accepted = await hall.accept("a.jsonl")
        for _ in range(3):
            await hall.begin()
            await hall.crash("TrainerActor")
            await eventually(lambda: hall.board.held is None)
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        view = await hall.queue.call(Retry("a.jsonl"))
        assert (view.state, view.attempts) == ("queued", 0)
        reply = await waiting
        assert reply.job is not None
        assert (reply.job.id, reply.job.attempt) == (accepted.id, 1)


async def test_a_failed_file_that_is_gone_cannot_be_retried(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        for _ in range(3):
            await hall.begin()
            await hall.crash("TrainerActor")
            await eventually(lambda: hall.board.held is None)
        (home.failed / "a.jsonl").unlink()
        assert await refusal(hall, Retry("a.jsonl")) == "wrong_state"


async def test_history_is_newest_first_and_can_be_asked_by_outcome(home: Home) -> None:
    async with open_hall(home) as hall:
        for name in ("a", "b", "c"):
            await hall.accept(f"{name}.jsonl")
        await hall.queue.call(Cancel("b.jsonl"))
        await hall.train(await hall.begin())
        assert [row.file for row in await hall.queue.call(GetHistory())] == ["a.jsonl", "b.jsonl"]
        assert [row.file for row in await hall.queue.call(GetHistory(limit=1))] == ["a.jsonl"]
        assert [row.file for row in await hall.queue.call(GetHistory(outcome="cancelled"))] == ["b.jsonl"]


async def test_who_waits_no_more_is_forgotten() -> None:
    @dataclass
    class Waiter:
        done: bool = False

    waiting: dict[str, list[Any]] = {}
    first, second = Waiter(), Waiter()
    enlist(waiting, "a", first)
    enlist(waiting, "a", second)
    first.done = True
    enlist(waiting, "b", Waiter())
    assert set(waiting) == {"a", "b"}, "one of the two still waits"
    second.done = True
    enlist(waiting, "c", Waiter())
    assert set(waiting) == {"b", "c"}


# ---------------------------------------------------------------- the gate


async def test_after_the_running_file_nothing_is_handed_out_and_the_next_daemon_forgets_it(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        job = await hall.begin()
        await hall.queue.call(StopAfterFile())
        await hall.train(job)
        assert (await hall.no_claim()).reason == "stop_after_file"
        await hall.crash("QueueManager")
        assert (await hall.no_claim()).reason == "stop_after_file", "the actor's crash is not the daemon's end"
    async with open_hall(home) as hall:
        assert not hall.board.gate.stop_after_file
        assert (await hall.claim()).file == "b.jsonl"


async def test_the_last_file_is_finished_although_its_trainer_dies(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        job = await hall.claim()
        await hall.queue.call(StopAfterFile())
        await hall.crash("TrainerActor")
        again = await hall.begin()
        assert again.id == job.id
        await hall.train(again)
        assert (await hall.no_claim()).reason == "stop_after_file"


# ---------------------------------------------------------------- hands, damage, another process


async def test_hands_in_the_folders_are_obeyed_while_the_daemon_runs(home: Home) -> None:
    config = Config(inbox=InboxSection(rescan=0.05))
    async with open_hall(home, config) as hall:
        await hall.queue.call(Pause())
        for name in ("moved", "deleted"):
            await hall.accept(f"{name}.jsonl")
        (home.line("normal") / "moved.jsonl").rename(home.line("low") / "moved.jsonl")
        (home.line("normal") / "deleted.jsonl").unlink()
        put(home, "added.jsonl", ROW, home.line("high"))
        await eventually(lambda: (hall.board.queue.normal, hall.board.queue.low) == (0, 1))
        await eventually(lambda: (home.inbox / "high" / "added.jsonl").exists())
        assert [row.file for row in await hall.queue.call(GetHistory())] == ["deleted.jsonl"]


async def test_how_often_hands_are_looked_for_can_be_changed_at_any_time(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.queue.call(Pause())
        await hall.accept("deleted.jsonl")
        (home.line("normal") / "deleted.jsonl").unlink()
        hall.reconfigure(msgspec.structs.replace(hall.store.current, inbox=InboxSection(rescan=0.05)))
        await eventually(lambda: hall.board.queue.normal == 0)


async def test_hands_in_failed_are_obeyed_while_the_daemon_runs(home: Home) -> None:
    async with open_hall(home, Config(inbox=InboxSection(rescan=0.05))) as hall:
        for name in ("again", "deleted"):
            await hall.accept(f"{name}.jsonl")
            await hall.queue.call(JobRefused((await hall.begin()).id, "no"))
        await hall.queue.call(Pause())
        (home.failed / "again.jsonl").rename(home.line("high") / "again.jsonl")
        (home.failed / "deleted.jsonl").unlink()
        (home.failed / "deleted.jsonl.error.json").unlink()
        await eventually(lambda: (hall.board.queue.high, hall.board.queue.failed) == (1, 0))
        assert not list(home.failed.iterdir()), "no report is left of what was taken back"


async def test_a_damaged_database_is_kept_aside_and_the_queue_rebuilt(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
    home.database.write_bytes(b"no database")
    async with open_hall(home) as hall:
        assert [view.file for view in await hall.queue.call(GetQueue())] == ["a.jsonl"]
        assert "kept as state.sqlite3.damaged-" in hall.board.troubles["QueueManager"].reason
    (aside,) = home.root.glob("state.sqlite3.damaged-*")
    assert aside.read_bytes() == b"no database"


async def test_a_trainer_process_that_is_killed_resumes_in_place_and_the_third_time_spends_one(home: Home) -> None:
    hall = Hall(home)
    store = ConfigStore(CONFIG)
    tree_spec = SupervisorSpec(
        "root",
        [
            ChildSpec("QueueManager", lambda: QueueManager(home, store, Disk(), hall.board)),
            ChildSpec(
                "TrainerActor",
                ProcessStart("tests.actors.queue.process_trainer:ClaimingTrainer", dict),
                isolation="process",
            ),
        ],
        intensity=50,
    )
    async with open_tree(tree_spec) as tree:
        hall.tree = tree
        accepted = await hall.accept("a.jsonl")
        for number in range(1, 4):
            await eventually(lambda number=number: _runs(hall, home, number))  # type: ignore[misc]
            assert (home.processing / "a.jsonl").exists()
            pid = int((home.root / "trainer").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: _runs(hall, home, 4))
        view = await hall.queue.call(GetJob(accepted.id))
        assert (view.attempts, view.priority) == (1, "low")
        assert "vanished" in (view.last_error or "")


def _runs(hall: Hall, home: Home, incarnation: int) -> bool:
    """The trainer of this number has left ``loading`` with its job, and QueueManager knows."""
    told = home.root / "trainer"
    return (
        told.exists()
        and told.read_text().endswith(f" {incarnation}")
        and hall.board.held is not None
        and hall.board.held.incarnation == incarnation
    )
