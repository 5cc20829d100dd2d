"""The night's work in a real tree: QueueManager lends the lease, a fake trainer works, the test owns the time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from protocol.config import Config, ConsolidationSection
from protocol.home import Home
from protocol.messages.consolidator import ConsolidateNow, ConsolidatorView, GetConsolidator
from protocol.messages.queue import Claim, Claimed, GetQueue
from protocol.messages.trainer import ConsolidationResult
from protocol.records import BaseModel, Head, Ledger, VersionManifest, encode_record
from supervisor.testing import FullDisk, VirtualClock, eventually
from tests.actors.queue.hall import CONFIG, Hall, open_hall, until
from tests.actors.queue.homes import make_home

pytestmark = pytest.mark.anyio

TEN_TO = datetime(2026, 5, 11, 2, 50, tzinfo=UTC)
THREE = datetime(2026, 5, 11, 3, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = 60.0
PROMOTED = ConsolidationResult("promoted", "a snapshot of step 7", 3)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


async def view(hall: Hall) -> ConsolidatorView:
    return await hall.tree.ref("Consolidator").call(GetConsolidator())


def remembered(hall: Hall) -> bool:
    """Whether an outcome is on the board."""
    return hall.board.consolidator is not None and hall.board.consolidator.last_outcome is not None


async def pass_time(hall: Hall, clock: VirtualClock, seconds: float) -> None:
    """Let time pass in steps, so that each look at the clock is followed by what it starts."""
    left = seconds
    while left > 0:
        await clock.advance(min(left, 120.0))
        await hall.queue.call(GetQueue())
        await view(hall)
        left -= 120.0


async def test_it_runs_once_past_three_and_again_the_next_night(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        await pass_time(hall, clock, 9 * MINUTE)
        assert hall.nights == []
        assert (await view(hall)).next_at == THREE
        await pass_time(hall, clock, 2 * MINUTE)
        await until(clock, lambda: len(hall.nights) == 1)
        await eventually(lambda: hall.board.gate.lease is None)
        await pass_time(hall, clock, 20 * MINUTE)
        assert len(hall.nights) == 1, "not twice a day"
        seen = await view(hall)
        assert (seen.last_outcome, seen.next_at) == ("promoted", THREE + DAY)
    assert json.loads((home.root / "consolidation.json").read_text())["format"] == 1
    clock = VirtualClock(TEN_TO + DAY)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        await pass_time(hall, clock, 8 * MINUTE)
        assert hall.nights == [], "another daemon remembers"
        assert (await view(hall)).last_outcome == "promoted"
        await pass_time(hall, clock, 4 * MINUTE)
        await until(clock, lambda: len(hall.nights) == 1)


async def test_it_waits_while_a_file_is_in_processing_or_in_the_inbox(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await pass_time(hall, clock, 20 * MINUTE)
        assert hall.nights == [], "a file is in processing"
        hall.quiet = False
        await hall.train(job)
        await pass_time(hall, clock, 4 * MINUTE)
        assert hall.nights == [], "files settle in the inbox"
        hall.quiet = True
        await pass_time(hall, clock, 2 * MINUTE)
        await until(clock, lambda: len(hall.nights) == 1)


async def test_no_file_is_trained_meanwhile(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        asked = hall.tree.ref("Consolidator").request(ConsolidateNow(), timeout=1e6)
        await eventually(lambda: len(hall.nights) == 1)
        assert hall.board.gate.lease == "consolidation"
        assert hall.board.consolidator is not None
        assert hall.board.consolidator.running
        await hall.accept("a.jsonl")
        assert (await hall.no_claim()).reason == "lease"
        waiting = hall.queue.request(Claim(wait_s=60), timeout=1e6)
        await hall.queue.call(GetQueue())
        hall.nights[0].send(PROMOTED)
        assert await asked == PROMOTED
        reply = await waiting
        assert reply.job is not None


async def test_now_ignores_the_date_and_waits_for_the_queue(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        await hall.accept("a.jsonl")
        job = await hall.begin()
        asked = hall.tree.ref("Consolidator").request(ConsolidateNow(), timeout=1e6)
        await pass_time(hall, clock, 5)
        assert not asked.done
        await hall.train(job)
        await until(clock, lambda: asked.done)
        assert await asked == PROMOTED


async def test_now_when_nobody_waits_any_more_is_not_done(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.quiet = False
        asked = hall.tree.ref("Consolidator").request(ConsolidateNow(), timeout=1e6)
        await pass_time(hall, clock, 10)
        asked.cancel()
        hall.quiet = True
        await pass_time(hall, clock, 4 * MINUTE)
        assert hall.nights == []


async def test_what_was_refused_is_remembered_too(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.night_ends = ConsolidationResult("refused", "nothing was trained yet")
        await pass_time(hall, clock, 14 * MINUTE)
        await until(clock, lambda: remembered(hall))
        assert len(hall.nights) == 1
        assert (await view(hall)).last_reason == "nothing was trained yet"


async def test_a_trainer_that_dies_of_it_is_tried_three_times_and_the_lease_goes_back(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        asked = hall.tree.ref("Consolidator").request(ConsolidateNow(), timeout=1e6)
        for number in (1, 2, 3):
            await until(clock, lambda number=number: len(hall.nights) == number)  # type: ignore[misc]
            await hall.crash("TrainerActor", MemoryError("no room"))
        await until(clock, lambda: asked.done)
        result = await asked
        assert result.outcome == "refused"
        assert "the model stays as it was" in result.reason
        assert hall.board.gate.lease is None
        assert "Consolidator" in hall.board.troubles


async def test_what_head_shows_to_be_done_is_not_done_twice(home: Home) -> None:
    """The daemon died between the promotion and the note of it."""
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True):
        pass
    night = datetime(2026, 5, 11, 3, 10, tzinfo=UTC)
    folder = home.version(4)
    folder.mkdir()
    base = BaseModel("tiny", "0" * 64, "full")
    manifest = VersionManifest(4, "snapshot", 7, "line", "c", "0" * 64, base, Ledger(), {}, night, {})
    (folder / "manifest.json").write_bytes(encode_record(manifest))
    home.head.write_bytes(encode_record(Head("line", None, 4, night)))
    clock = VirtualClock(night + timedelta(minutes=5))
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        await pass_time(hall, clock, 4 * MINUTE)
        await until(clock, lambda: remembered(hall))
        assert hall.nights == []
        assert (await view(hall)).last_outcome == "promoted"


async def test_the_crash_of_consolidator_gives_the_lease_back(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.tree.ref("Consolidator").request(ConsolidateNow(), timeout=1e6)
        await eventually(lambda: len(hall.nights) == 1)
        await hall.accept("a.jsonl")  # files that wait must not keep it from returning what it had
        hall.tree.inject_fault("Consolidator", ValueError("an injected fault"))
        await until(clock, lambda: hall.board.gate.lease is None)
        assert (await hall.claim()).file == "a.jsonl"


# ---------------------------------------------------------------- when the queue is never empty

FORCED = Config(inbox=CONFIG.inbox, consolidation=ConsolidationSection(force_after=4 * MINUTE))


async def busy(hall: Hall) -> Claimed:
    """Have a file in training and another one waiting."""
    await hall.accept("a.jsonl")
    await hall.accept("b.jsonl")
    return await hall.begin()


async def test_a_queue_that_is_never_empty_is_interrupted_between_two_files(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, FORCED, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        job = await busy(hall)
        await pass_time(hall, clock, 13 * MINUTE)
        assert hall.board.gate.lease_wanted is None, "not yet four minutes past three"
        await until(clock, lambda: hall.board.gate.lease_wanted is not None)
        assert hall.nights == [], "the running file is finished first"
        await hall.train(job)
        assert (await hall.no_claim()).reason == "lease"
        await until(clock, lambda: len(hall.nights) == 1)
        await until(clock, lambda: remembered(hall))
        assert (await hall.claim()).file == "b.jsonl", "then the line goes on"
        await pass_time(hall, clock, 10 * MINUTE)
        assert len(hall.nights) == 1, "once a day"


async def test_without_the_setting_a_queue_that_is_never_empty_is_left_alone(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        job = await busy(hall)
        await pass_time(hall, clock, 20 * MINUTE)
        await hall.train(job)
        assert (await hall.claim()).file == "b.jsonl"
        assert hall.nights == []


async def test_switched_off_while_it_waits_the_line_goes_on(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, FORCED, clock=clock, night=True) as hall:
        job = await busy(hall)
        await until_late(hall, clock)
        hall.reconfigure(CONFIG)
        await until(clock, lambda: hall.board.gate.lease_wanted is None)
        await hall.train(job)
        assert (await hall.claim()).file == "b.jsonl"


async def test_whoever_asks_for_it_now_is_answered_by_the_forced_one_too(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, FORCED, clock=clock, night=True) as hall:
        hall.night_ends = PROMOTED
        job = await busy(hall)
        await until_late(hall, clock)
        asked = hall.tree.ref("Consolidator").request(ConsolidateNow(), timeout=1e6)
        await hall.train(job)
        await hall.no_claim()
        await until(clock, lambda: asked.done)
        assert await asked == PROMOTED


async def until_late(hall: Hall, clock: VirtualClock) -> None:
    """Let time pass until a consolidation is wanted between two files."""
    await pass_time(hall, clock, 15 * MINUTE)
    await until(clock, lambda: hall.board.gate.lease_wanted == "consolidation")


# ---------------------------------------------------------------- a disk that cannot be written


async def test_a_full_disk_makes_no_second_night_and_is_written_later(home: Home) -> None:
    clock, disk = VirtualClock(TEN_TO), FullDisk(full_at=0)
    async with open_hall(home, clock=clock, night=True, nights_disk=disk) as hall:
        hall.night_ends = PROMOTED
        assert "No space left" in hall.board.troubles["Consolidator"].reason
        await pass_time(hall, clock, 12 * MINUTE)
        await until(clock, lambda: len(hall.nights) == 1)
        await until(clock, lambda: remembered(hall))
        await pass_time(hall, clock, 4 * MINUTE)
        assert len(hall.nights) == 1
        assert hall.tree.ref("Consolidator").cell.incarnation == 1
        assert not (home.root / "consolidation.json").exists()
        disk.make_room()
        await until(clock, lambda: "Consolidator" not in hall.board.troubles)
        assert json.loads((home.root / "consolidation.json").read_text())["plan"]["last_outcome"] == "promoted"


async def test_a_memory_that_cannot_be_read_says_what_to_do(home: Home) -> None:
    (home.root / "consolidation.json").write_text("{")
    clock = VirtualClock(TEN_TO)
    async with open_hall(home, clock=clock, night=True) as hall:
        await until(clock, lambda: "delete it, and the schedule begins anew" in trouble(hall))
        (home.root / "consolidation.json").unlink()
        await until(clock, lambda: hall.running("Consolidator"))
        assert trouble(hall) == ""


def trouble(hall: Hall) -> str:
    return str(hall.board.troubles.get("Consolidator", ""))


async def test_it_can_be_switched_off(home: Home) -> None:
    clock = VirtualClock(TEN_TO)
    config = Config(inbox=CONFIG.inbox, consolidation=ConsolidationSection(enabled=False))
    async with open_hall(home, config, clock=clock, night=True) as hall:
        await pass_time(hall, clock, 20 * MINUTE)
        assert hall.nights == []
        assert (await view(hall)).next_at is None


async def test_a_memory_of_a_newer_stokehold_is_left_alone(home: Home) -> None:
    path = home.root / "consolidation.json"
    path.write_text('{"format": 2, "moon": "full"}')
    async with open_hall(home, night=True) as hall:
        await eventually(lambda: "run the newer one" in trouble(hall))
        assert not hall.running("Consolidator")
    assert path.read_text() == '{"format": 2, "moon": "full"}'
