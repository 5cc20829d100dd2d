"""A full disk, a failing one, folders that are gone: nobody crashes of it, nothing is lost, all goes on by itself."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.queue.book import Book
from actors.queue.folders import Folders
from protocol.home import Home
from protocol.messages.common import Request
from protocol.messages.queue import (
    Cancel,
    Claim,
    GetJob,
    GetQueue,
    JobPhase,
    JobRefused,
    Move,
    Release,
    Stopping,
    Trained,
)
from supervisor import CallFailed, HandlerFailed
from supervisor.durable import Disk
from supervisor.testing import FullDisk, VirtualClock, eventually
from tests.actors.queue.crashes import SCENARIOS
from tests.actors.queue.hall import Hall, open_hall, until
from tests.actors.queue.homes import (
    ROW,
    accept,
    accept_all,
    accept_message,
    assert_agree,
    first_book,
    get,
    in_memory,
    make_home,
    open_book,
    payloads,
    put,
    reopen,
    stats,
    where,
)

pytestmark = pytest.mark.anyio

FULL = {"accepting", "committing", "interrupting", "failing", "refusing", "changing", "falling_back"}


class FailingDisk(FullDisk):
    """Fails at one step, whatever it is, and at all that follow: also where something is only removed or synced."""

    _needs_room = FullDisk._needs_room | {"unlink", "sync_folder", "sync_file", "remove_tree"}


# ---------------------------------------------------------------- each step of each change


@pytest.mark.parametrize("kind", [FullDisk, FailingDisk])
@pytest.mark.parametrize("scenario", sorted(FULL))
def test_a_disk_that_is_full_at_any_step_loses_and_doubles_nothing(scenario: str, kind: type[FullDisk]) -> None:
    failed, step = True, 0
    while failed:
        step += 1
        with in_memory() as root:
            disk = kind()
            book = first_book(make_home(root), disk)
            disk.full_at = len(disk.steps) + step
            failed = not goes_through(book, scenario)
            disk.make_room()
            texts = set(where(book.folders.home))
            book.pay()
            assert not book.owed
            once(book)
            after = reopen(book)
            assert texts <= set(where(book.folders.home)), f"lost at step {step}"
            after.store.close()
    assert step > 4


def goes_through(book: Book, scenario: str) -> bool:
    """Run it; False if the disk did not let it come to its end."""
    try:
        SCENARIOS[scenario](book)
    except OSError as error:
        assert error.errno == errno.ENOSPC
        return False
    return True


def once(book: Book) -> None:
    """Without a recovery: each payload of the queue has its row, and none is there twice."""
    queue = [path for path in payloads(book.folders.home) if path.is_relative_to(book.folders.home.queue)]
    for path in queue:
        assert path.name.startswith(".") or book.store.is_named(path.parent.name, path.name), path  # type: ignore[arg-type]
    assert all(len(paths) == 1 for paths in where(book.folders.home).values())


# ---------------------------------------------------------------- the actor


@asynccontextmanager
async def open_room(home: Home) -> AsyncIterator[tuple[Hall, FullDisk, VirtualClock]]:
    """A hall with a disk that the test fills and empties, and a clock that it owns."""
    disk, clock = FullDisk(), VirtualClock()
    async with open_hall(home, disk=disk, clock=clock) as hall:
        yield hall, disk, clock
        disk.make_room()


def fill(disk: FullDisk) -> None:
    disk.full_at = 0


async def refused(hall: Hall, request: Request[object]) -> str | None:
    with pytest.raises(HandlerFailed) as told:
        await hall.queue.call(request)
    return told.value.code


def unharmed(hall: Hall) -> bool:
    return hall.queue.cell.incarnation == 1


async def test_what_is_brought_to_a_full_disk_is_refused_and_taken_later(home: Home) -> None:
    async with open_room(home) as (hall, disk, clock):
        path = put(home, "a.jsonl", ROW)
        fill(disk)
        assert await refused(hall, accept_message(path)) == "unwritable"
        assert path.exists()
        assert "No space left" in (hall.board.gate.storage or "")
        assert "No space left" in hall.board.troubles["QueueManager"].reason
        await clock.advance(3.0)
        assert hall.board.gate.storage is not None, "it is still full"
        disk.make_room()
        await settled(hall, clock)
        assert "QueueManager" not in hall.board.troubles
        await hall.queue.call(accept_message(path))
        assert (hall.board.queue.normal, unharmed(hall)) == (1, True)


async def settled(hall: Hall, clock: VirtualClock) -> None:
    """Let the queue find out that it can write again."""
    await until(clock, lambda: hall.board.gate.storage is None)


async def test_a_file_whose_row_was_committed_and_that_could_not_be_moved_is_accepted_once(home: Home) -> None:
    async with open_room(home) as (hall, disk, clock):
        path = put(home, "a.jsonl", ROW)
        disk.full_at = len(disk.steps) + 2  # the commit succeeds, the rename does not
        assert await refused(hall, accept_message(path)) == "unwritable"
        assert await refused(hall, accept_message(path)) == "unwritable", "InboxWatcher tries again"
        disk.make_room()
        await settled(hall, clock)
        assert (home.line("normal") / "a.jsonl").exists()
        assert len(await hall.queue.call(GetQueue())) == 1


async def test_nothing_is_handed_out_on_a_full_disk_and_then_by_itself(home: Home) -> None:
    async with open_room(home) as (hall, disk, clock):
        await hall.accept("a.jsonl")
        fill(disk)
        assert (await hall.no_claim()).reason == "disk"
        waiting = hall.queue.request(Claim(wait_s=1e5), timeout=1e6)
        await hall.queue.call(GetQueue())
        assert not waiting.done
        disk.make_room()
        await clock.advance(1.0)
        reply = await waiting
        assert reply.job is not None
        assert (reply.job.attempt, unharmed(hall)) == (1, True)


@pytest.mark.parametrize("word", ["trained", "released", "refused", "committed"])
async def test_what_the_trainer_tells_waits_for_room_and_costs_nothing(home: Home, word: str) -> None:
    async with open_room(home) as (hall, disk, clock):
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.queue.call(GetQueue())
        told: dict[str, Request[object]] = {
            "trained": Trained(job.id, stats(2)),
            "released": Release(job.id, "pause", stats(1)),
            "refused": JobRefused(job.id, "no row of it can be trained on"),
        }
        fill(disk)
        with pytest.raises(CallFailed) as again:
            await (hall.commit(job) if word == "committed" else hall.queue.call(told[word]))
        assert not isinstance(again.value, HandlerFailed), "a refusal would be the end of the trainer"
        assert hall.board.held is not None
        disk.make_room()
        await settled(hall, clock)
        await (hall.tell_again() if word == "committed" else hall.queue.call(told[word]))
        assert hall.board.held is None
        queue = hall.board.queue
        ends = {"trained": queue.processing, "released": queue.processing, "refused": queue.failed}
        assert ends.get(word, queue.done) == 1
        assert unharmed(hall)


async def test_the_death_of_a_trainer_on_a_full_disk_is_counted_once(home: Home) -> None:
    async with open_room(home) as (hall, disk, clock):
        await hall.accept("a.jsonl")
        job = await hall.begin()
        await hall.queue.call(GetQueue())
        fill(disk)
        await hall.crash("TrainerActor")
        await until(clock, lambda: hall.board.gate.storage is not None)
        await clock.advance(3.0)
        disk.make_room()
        await settled(hall, clock)
        await until(clock, lambda: hall.board.held is None)
        assert (await hall.queue.call(GetJob(job.id))).attempts == 1
        assert (home.line("low") / "a.jsonl").exists()


async def test_what_people_ask_for_is_refused_in_words(home: Home) -> None:
    async with open_room(home) as (hall, disk, _):
        await hall.accept("a.jsonl")
        fill(disk)
        for request in (Move("a.jsonl", "low"), Cancel("a.jsonl"), Stopping()):
            assert await refused(hall, request) == "unwritable"
        assert [view.priority for view in await hall.queue.call(GetQueue())] == ["normal"]


async def test_a_phase_that_cannot_be_noted_disturbs_nobody(home: Home) -> None:
    async with open_room(home) as (hall, disk, _):
        await hall.accept("a.jsonl")
        job = await hall.claim()
        fill(disk)
        hall.queue.cast(JobPhase(job.id, "training"))
        await hall.queue.call(GetQueue())
        assert unharmed(hall)


async def test_a_daemon_that_starts_on_a_full_disk_says_so_and_comes_up_with_room(home: Home) -> None:
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
    book = open_book(home)
    book.claim()  # something is left to be done at the start
    book.store.close()
    disk = FullDisk(0)
    async with open_hall(home, disk=disk) as hall:
        await eventually(lambda: "No space left" in str(hall.board.troubles.get("QueueManager")))
        assert not hall.board.queue_ready
        disk.make_room()
        await eventually(lambda: hall.running("QueueManager"))
        assert "QueueManager" not in hall.board.troubles
        assert (await hall.claim()).file == "a.jsonl"


async def test_a_database_that_somebody_else_has_locked_is_waited_for(home: Home) -> None:
    async with open_hall(home, disk=Impatient()) as hall:
        await hall.accept("a.jsonl")
        other = sqlite3.connect(home.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert await refused(hall, Move("a.jsonl", "low")) == "unwritable"
        assert "locked" in (hall.board.gate.storage or "")
        other.close()
        await eventually(lambda: hall.board.gate.storage is None)
        assert unharmed(hall)


class Impatient(Disk):
    """Does not wait for a lock on the database for as long as production does."""

    def commit(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA busy_timeout=10")
        super().commit(connection)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("gone", ["high", "normal", "low", "processing", "failed", "done"])
async def test_a_folder_that_is_gone_is_made_anew(home: Home, gone: str) -> None:
    async with open_hall(home) as hall:
        shutil.rmtree(home.queue / gone)
        for priority in ("high", "normal", "low"):
            await hall.accept(f"{priority}.jsonl", priority=priority)  # type: ignore[arg-type]
        first = await hall.begin()
        await hall.train(first)
        second = await hall.begin()
        await hall.queue.call(JobRefused(second.id, "no"))
        assert (hall.board.queue.done, hall.board.queue.failed, unharmed(hall)) == (1, 1, True)
    assert_agree(open_book(home))


async def test_the_queue_folder_itself_may_be_gone_at_the_start(home: Home) -> None:
    shutil.rmtree(home.queue)
    async with open_hall(home) as hall:
        await hall.accept("a.jsonl")
        assert (await hall.claim()).file == "a.jsonl"


def test_a_file_that_the_inbox_will_not_give_up_stays_there_and_hinders_nobody(home: Home) -> None:
    class NotOurs(Disk):
        def rename(self, source: Path, target: Path, *, sync: bool = True) -> None:
            if source.name == "theirs.jsonl":
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))
            super().rename(source, target, sync=sync)

    book = first_book(home, NotOurs())
    theirs, ours = put(home, "theirs.jsonl", ROW), put(home, "ours.jsonl", ROW * 2)
    answers = accept_all(book, [accept_message(theirs), accept_message(ours)])
    assert [getattr(answer, "code", None) for answer in answers] == ["not_movable", None]
    assert theirs.exists()
    assert (book.store.counts().normal, len(book.owed)) == (1, 0)
    reopen(book)


def test_a_file_that_cannot_be_read_is_parked_with_that_reason(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    book = open_book(home)
    bad = accept(book, "bad.jsonl")
    accept(book, "good.jsonl")
    book.path(bad).touch()

    def unreadable(self: Folders, path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Folders, "sha256", unreadable)
    held = book.claim()
    assert held is not None
    assert held.file == "good.jsonl"
    assert get(book, bad.id).last_error == "its file cannot be read: Permission denied"
