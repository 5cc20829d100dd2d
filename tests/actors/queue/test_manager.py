"""QueueManager in a real tree: the trainer's side."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from protocol.home import Home
from protocol.messages.queue import (
    Claim,
    Committed,
    CommittedJob,
    DiskGate,
    GetHistory,
    GetQueue,
    Published,
    Trained,
)
from protocol.messages.trainer import GateOpened
from supervisor import CallFailed
from supervisor.testing import eventually
from tests.actors.queue.hall import open_hall
from tests.actors.queue.homes import (
    ROW,
    accept_message,
    put,
    stats,
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
