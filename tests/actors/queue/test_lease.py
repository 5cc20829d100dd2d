"""The maintenance lease: when all is quiet, and between two files."""

from __future__ import annotations

import pytest

from protocol.home import Home
from protocol.messages.queue import (
    Claim,
    GetQueue,
    Lease,
    Pause,
    QuietReport,
    RequestLease,
    Resume,
    ReturnLease,
    StopAfterFile,
    Stopping,
    Trained,
)
from supervisor import CallTimeout, Pending
from supervisor.testing import FullDisk, VirtualClock, eventually
from tests.actors.queue.hall import Hall, open_hall
from tests.actors.queue.homes import stats

pytestmark = pytest.mark.anyio

HOLDER = "consolidation"


async def lease(hall: Hall, holder: str = "consolidation") -> Lease:
    return await hall.queue.call(RequestLease(holder))


async def test_the_lease_is_granted_only_when_all_is_quiet(home: Home) -> None:
    async with open_hall(home) as hall:
        hall.quiet = False
        assert not (await lease(hall)).granted
        hall.quiet = True
        await hall.accept("a.jsonl")
        assert (await lease(hall)).reason == "1 file in the queue"
        job = await hall.begin()
        assert not (await lease(hall)).granted
        await hall.train(job)
        await hall.queue.call(Pause())
        assert (await lease(hall)).reason == "training is paused"
        await hall.queue.call(Resume())
        scans = len(hall.scans)
        granted = await lease(hall)
        assert granted.granted
        assert len(hall.scans) == scans + 1, "by a scan that began after the request"
        assert hall.board.gate.lease == "consolidation"


async def test_while_the_lease_is_out_nothing_is_handed_out(home: Home) -> None:
    async with open_hall(home) as hall:
        granted = await lease(hall)
        assert await lease(hall) == granted, "its holder gets the same again"
        assert not (await lease(hall, "somebody else")).granted
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        await hall.accept("a.jsonl")
        assert (await hall.queue.call(GetQueue()))[0].state == "queued"
        assert not waiting.done
        assert (await hall.queue.call(ReturnLease("another token"))).detail
        assert hall.board.gate.lease == "consolidation"
        await hall.queue.call(ReturnLease(granted.token))
        reply = await waiting
        assert reply.job is not None


async def test_a_file_that_comes_while_the_scan_runs_wins(home: Home) -> None:
    async with open_hall(home) as hall:
        hall.quiet = None
        asked = hall.queue.request(RequestLease("consolidation"), timeout=60)
        await eventually(lambda: len(hall.scans) == 1)
        await hall.accept("a.jsonl")
        hall.queue.cast(QuietReport(hall.scans[0], True))
        assert not (await asked).granted


async def test_a_lease_that_nobody_waits_for_is_not_lent(home: Home) -> None:
    async with open_hall(home) as hall:
        hall.quiet = None
        with pytest.raises(CallTimeout):
            await hall.queue.call(RequestLease("consolidation"), timeout=0.05)
        hall.queue.cast(QuietReport(hall.scans[0], True))
        await hall.queue.call(GetQueue())
        assert hall.board.gate.lease is None


async def test_the_lease_of_a_dead_daemon_is_cleared(home: Home) -> None:
    async with open_hall(home) as hall:
        await lease(hall)
        await hall.crash("QueueManager")
        assert hall.board.gate.lease == "consolidation", "the daemon that lent it is alive"
    async with open_hall(home) as hall:
        assert hall.board.gate.lease is None


async def test_its_holder_gets_it_again_although_files_wait_by_now(home: Home) -> None:
    """Else a holder that crashed could never give it back, and nothing would be trained any more."""
    async with open_hall(home) as hall:
        granted = await lease(hall)
        await hall.accept("a.jsonl")
        assert await lease(hall) == granted
        assert await hall.queue.call(RequestLease(HOLDER, between_files=True)) == granted
        await hall.queue.call(Pause())
        assert await lease(hall) == granted


# ---------------------------------------------------------------- between two files


def wish(hall: Hall) -> Pending[Lease]:
    return hall.queue.request(RequestLease(HOLDER, between_files=True), timeout=1e6)


async def heard(hall: Hall) -> None:
    """Let QueueManager deal with all that was said to it, and with what it said to itself."""
    for _ in range(2):
        await hall.queue.call(GetQueue())


async def test_between_two_files_it_is_lent_although_files_wait(home: Home) -> None:
    async with open_hall(home) as hall:
        hall.quiet = False
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl", priority="high")
        running = await hall.begin()
        asked = wish(hall)
        await heard(hall)
        assert hall.board.gate.lease_wanted == HOLDER
        assert not hall.board.gate.open
        assert not asked.done, "the running file is finished first"
        await hall.queue.call(Trained(running.id, stats(2)))
        assert (await hall.no_claim()).reason == "lease"
        await heard(hall)
        assert not asked.done, "it is finished when a checkpoint holds it"
        await hall.commit(running)
        waiting = hall.queue.request(Claim(wait_s=30), timeout=60)
        granted = await asked
        assert granted.granted
        assert (hall.board.gate.lease, hall.board.gate.lease_wanted) == (HOLDER, None)
        assert not hall.scans, "the inbox need not be quiet"
        assert not waiting.done
        await hall.queue.call(ReturnLease(granted.token))
        reply = await waiting
        assert reply.job is not None, "and the line goes on"


async def test_with_nothing_in_processing_it_is_lent_at_once(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        assert (await wish(hall)).granted


async def test_one_that_cannot_be_noted_on_a_full_disk_is_refused_and_holds_nobody_up(home: Home) -> None:
    disk = FullDisk()
    async with open_hall(home, disk=disk) as hall:
        await hall.accept("a.jsonl")
        disk.full_at = len(disk.steps) + 1
        lease = await wish(hall)
        assert not lease.granted
        assert "cannot write" in lease.reason
        assert (hall.board.gate.lease, hall.board.gate.lease_wanted) == (None, None)
        disk.make_room()
        await eventually(lambda: hall.board.gate.open)
        assert (await hall.claim()).file == "a.jsonl"


async def test_a_file_whose_trainer_died_is_finished_before_it_is_lent(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        running = await hall.begin()
        asked = wish(hall)
        await hall.commit(cursors={running.id: 1})  # so that the failure spends no attempt
        await hall.crash("TrainerActor")
        again = await hall.begin()
        assert again.id == running.id
        await hall.train(again)
        assert (await hall.no_claim()).reason == "lease"
        assert (await asked).granted


async def test_a_wish_that_nobody_has_any_more_lets_the_line_go_on(home: Home) -> None:
    clock = VirtualClock()
    async with open_hall(home, clock=clock) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        running = await hall.begin()
        asked = wish(hall)
        await heard(hall)
        asked.cancel()
        await hall.train(running)
        assert (await hall.no_claim()).reason == "lease"
        waiting = hall.queue.request(Claim(wait_s=1e5), timeout=1e6)
        await heard(hall)
        await clock.advance(1.0)
        reply = await waiting
        assert reply.job is not None
        assert hall.board.gate.lease_wanted is None


async def test_a_wish_does_not_outlive_the_actor(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        await hall.accept("b.jsonl")
        running = await hall.begin()
        wish(hall)
        await heard(hall)
        await hall.crash("QueueManager")
        assert hall.board.gate.lease_wanted is None
        await hall.train(running)
        assert (await hall.claim()).file == "b.jsonl"


async def test_a_wish_is_refused_while_it_cannot_come_true(home: Home) -> None:
    async with open_hall(home) as hall:
        other = await lease(hall, "somebody else")
        assert (await wish(hall)).reason == "somebody else holds the lease"
        await hall.queue.call(ReturnLease(other.token))
        await hall.queue.call(Pause())
        assert (await wish(hall)).reason == "training is paused"
        await hall.queue.call(Resume())
        await hall.queue.call(StopAfterFile())
        assert (await wish(hall)).reason == "the daemon stops"
        await hall.queue.call(Resume())
        await hall.queue.call(Stopping())
        assert (await wish(hall)).reason == "the daemon stops"


async def test_a_pause_comes_before_a_wish_and_the_wish_stays(home: Home) -> None:
    clock = VirtualClock()
    async with open_hall(home, clock=clock) as hall:
        await hall.accept("a.jsonl")
        running = await hall.begin()
        asked = wish(hall)
        await heard(hall)
        await hall.train(running)
        pausing = hall.queue.request(Pause(), timeout=60)
        await pausing
        assert (await hall.no_claim()).reason == "paused"
        await clock.advance(1.0)
        assert not asked.done
        await hall.queue.call(Resume())
        await clock.advance(1.0)
        assert (await asked).granted


async def test_the_newest_wish_counts(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        running = await hall.begin()
        first, second = wish(hall), wish(hall)
        assert not (await first).granted
        await hall.train(running)
        await hall.no_claim()
        assert (await second).granted
