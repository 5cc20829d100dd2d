"""Reconciliation at start: what SQLite, folders and ledger say, and what is made of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from actors.queue.book import Book
from actors.queue.job import Job
from actors.queue.retention import expire
from protocol.home import Home
from protocol.messages.common import Priority
from protocol.records import Ledger, encode_record
from supervisor.durable import Disk
from supervisor.testing import FullDisk
from tests.actors.queue.homes import (
    BOOT,
    ROW,
    accept,
    accept_all,
    accept_message,
    assert_agree,
    claim,
    cursor,
    elsewhere,
    entry,
    get,
    open_book,
    put,
    recover,
    reopen,
    stats,
    where,
    write_checkpoint,
    write_head,
)


def finish(book: Book, job: Job, samples: int = 2) -> Job:
    """Train a claimed job up to its commit, as SQLite is told of it."""
    book.trained(job, stats(samples))
    book.committed([(get(book, job.id), stats(samples))], {})
    return get(book, job.id)


# ---------------------------------------------------------------- the ledger wins


def test_a_job_that_the_ledger_commits_is_done(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.trained(claim(book), stats(2))
    write_checkpoint(home, 1, (entry(job),))
    after = reopen(book)
    assert (home.done / "a.jsonl").exists()
    (row,) = after.store.history(10)
    assert (row.id, row.outcome, row.samples, row.steps) == (job.id, "trained", 2, 2)


def test_a_waiting_job_that_the_ledger_commits_is_done_too(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    write_checkpoint(home, 1, (entry(job),))
    after = reopen(book)
    assert (home.done / "a.jsonl").exists()
    assert after.claim() is None


def test_a_job_that_no_ledger_holds_is_queued_again_ahead_at_its_cursor(home: Home, book: Book) -> None:
    write_checkpoint(home, 1)
    first = accept(book, "a.jsonl", priority="low")
    second = accept(book, "b.jsonl", priority="low")
    finish(book, claim(book))
    finish(book, claim(book))
    accept(book, "c.jsonl", priority="high")
    assert book.store.counts().done == 2
    write_checkpoint(home, 2, (), (cursor(first, 4),))  # HEAD fell back to one that holds a half of the first
    after = reopen(book)
    assert [job.file for job in after.store.listed()] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert after.store.history(10) == [], "it is no longer true that they were trained"
    again = claim(after)
    assert (again.id, again.tally.progress, again.stats.samples) == (first.id, 4, 4)
    after.trained(again, stats(10))
    assert claim(after).id == second.id


def test_a_job_done_in_sqlite_without_its_file_fails_loudly(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    finish(book, claim(book))
    (home.done / "a.jsonl").unlink()
    write_checkpoint(home, 1)
    after = reopen(book)
    assert get(after, job.id).state == "failed"
    assert "no longer in done/" in (get(after, job.id).last_error or "")


@pytest.mark.parametrize("damage", ["head missing", "head torn", "checkpoint torn", "checkpoint gone"])
def test_nothing_is_concluded_from_a_ledger_that_cannot_be_read(home: Home, book: Book, damage: str) -> None:
    accept(book, "a.jsonl")
    done = finish(book, claim(book))
    accept(book, "b.jsonl")
    held = claim(book)
    name = write_checkpoint(home, 1, (entry(done),))
    if damage == "head missing":
        home.head.unlink()
    elif damage == "head torn":
        home.head.write_text("{")
    elif damage == "checkpoint torn":
        (home.checkpoints / name / "ledger.json").write_bytes(encode_record(Ledger()))
    else:
        (home.checkpoints / name / "manifest.json").unlink()
    book.store.close()
    after = open_book(home)
    said = recover(after)
    assert any("cannot be known" in text for text in said)
    assert get(after, done.id).state == "done", "not queued again on a guess"
    assert (home.done / "a.jsonl").exists()
    assert get(after, held.id).state == "queued"


def test_progress_and_its_counts_come_from_the_ledger(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    claim(book)
    write_checkpoint(home, 1, (), (cursor(job, 7),))
    after = reopen(book)
    assert get(after, job.id).tally.progress == 7
    assert get(after, job.id).stats.samples == 7
    write_checkpoint(home, 2)
    after = reopen(after)
    assert get(after, job.id).tally.progress == 0


# ---------------------------------------------------------------- processing/


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
def test_what_stands_in_processing_goes_back_to_its_line_ahead_of_it(
    home: Home, book: Book, priority: Priority
) -> None:
    accept(book, "a.jsonl", priority=priority)
    held = claim(book)
    accept(book, "b.jsonl", priority=priority)
    after = reopen(book)
    assert (home.line(priority) / "a.jsonl").exists()
    assert [job.file for job in after.store.listed()] == ["a.jsonl", "b.jsonl"]
    assert get(after, held.id).tally.attempts == 0
    assert get(after, held.id).interruptions == 1
    assert claim(after).id == held.id


def test_trained_and_held_keep_the_order_in_which_they_were_begun(home: Home, book: Book) -> None:
    accept(book, "low.jsonl", priority="low")
    first = claim(book)
    book.trained(first, stats(2))
    accept(book, "normal.jsonl")
    second = claim(book)
    accept(book, "high.jsonl", priority="high")
    after = reopen(book)
    assert [claim(after).id, after.trained(get(after, first.id), stats(2)).id, claim(after).id] == [
        first.id,
        first.id,
        second.id,
    ], "a crash must not change the order of training"


def test_an_unknown_file_in_processing_goes_to_normal_ahead(home: Home, book: Book) -> None:
    accept(book, "waiting.jsonl")
    put(home, "orphan.jsonl", ROW * 3, home.processing)
    after = reopen(book)
    assert (home.line("normal") / "orphan.jsonl").exists()
    job = claim(after)
    assert (job.file, job.samples, job.priority) == ("orphan.jsonl", 3, "normal")


def test_a_file_gone_from_processing_fails_its_job(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    claim(book)
    (home.processing / "a.jsonl").unlink()
    after = reopen(book)
    assert get(after, job.id).state == "failed"
    assert json.loads((home.failed / "a.jsonl.error.json").read_text())["id"] == job.id


def test_three_daemons_that_vanish_with_a_file_park_it(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    for number in range(3):
        held = claim(book)
        assert held.id == job.id
        book.leave_loading(held, BOOT)
        book = reopen(book)
        assert get(book, job.id).state == ("failed" if number == 2 else "queued")
    assert "suspected poison" in (get(book, job.id).last_error or "")
    assert get(book, job.id).tally.attempts == 0


def test_neither_loading_nor_another_boot_makes_poison(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    for _ in range(4):
        claim(book)
        book = reopen(book)
    for number in range(4):
        book.leave_loading(claim(book), f"boot-{number}")
        book = reopen(book, f"boot-{number + 1}")
    assert get(book, job.id).state == "queued"


def test_a_newer_checkpoint_between_makes_no_poison(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    for number in range(5):
        book.leave_loading(claim(book), BOOT)
        write_checkpoint(home, number + 1, (), (cursor(job, number + 1),))
        book = reopen(book)
    assert get(book, job.id).state == "queued"


# ---------------------------------------------------------------- hands


def test_a_file_moved_by_hand_is_reprioritised(home: Home, book: Book) -> None:
    accept(book, "other.jsonl", priority="high")
    job = accept(book, "a.jsonl")
    (home.line("normal") / "a.jsonl").rename(home.line("high") / "renamed.jsonl")
    after = reopen(book)
    moved = get(after, job.id)
    assert (moved.priority, moved.name, moved.file) == ("high", "renamed.jsonl", "a.jsonl")
    assert [one.file for one in after.store.listed()] == ["other.jsonl", "a.jsonl"], "at the end of that line"


def test_a_file_renamed_in_its_line_keeps_its_place(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    begun = claim(book)
    book.back_to_line(begun)
    accept(book, "b.jsonl")
    (home.line("normal") / "a.jsonl").rename(home.line("normal") / "z.jsonl")
    after = reopen(book)
    assert [(one.file, get(after, one.id).name) for one in after.store.listed()] == [
        ("a.jsonl", "z.jsonl"),
        ("b.jsonl", "b.jsonl"),
    ]
    assert get(after, job.id).rank == begun.rank, "it is still ahead of its line"


def test_what_stands_in_place_of_a_deleted_file_is_not_deleted(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.path(job).unlink()
    book.path(job).symlink_to("/etc/hostname")
    book.store.close()
    after = open_book(home)
    recover(after)
    assert after.store.get(job.id) is None
    assert (home.line("normal") / "a.jsonl").is_symlink()


def test_a_file_that_only_looks_like_a_deleted_one_is_a_new_one(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    path = book.path(job)
    found, size = path.stat(), path.stat().st_size
    path.unlink()
    other = put(home, "b.jsonl", "x" * size, home.line("high"))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    after = reopen(book)
    assert after.store.get(job.id) is None
    assert (home.inbox / "high" / "b.jsonl").exists()


def test_a_file_deleted_by_hand_is_cancelled(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    (home.line("normal") / "a.jsonl").unlink()
    after = reopen(book)
    assert after.store.get(job.id) is None
    assert [one.outcome for one in after.store.history(10)] == ["cancelled"]


def test_a_file_added_by_hand_is_validated_like_any_other(home: Home, book: Book) -> None:
    put(home, "new.jsonl", ROW, home.line("high"))
    reopen(book)
    assert (home.inbox / "high" / "new.jsonl").read_text() == ROW
    assert not list(home.line("high").iterdir())


def test_two_files_of_one_name_added_by_hand_are_both_kept(home: Home, book: Book) -> None:
    (home.inbox / "high").mkdir()
    put(home, "new.jsonl", ROW, home.inbox / "high")
    put(home, "new.jsonl", ROW * 2, home.line("high"))
    reopen(book)
    assert set(where(home)) == {ROW, ROW * 2}
    assert all(path[0].endswith("/new.jsonl") for path in where(home).values())


def test_hidden_files_folders_and_links_are_left_alone(home: Home, book: Book) -> None:
    line = home.line("normal")
    put(home, ".hidden", "x", line)
    (line / "folder").mkdir()
    (line / "link.jsonl").symlink_to("/etc/hostname")
    book.store.close()
    after = open_book(home)
    assert recover(after) == []
    assert sorted(path.name for path in line.iterdir()) == [".hidden", "folder", "link.jsonl"]


def test_a_failed_file_put_back_into_a_line_is_tried_again(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.park(claim(book), "no good")
    (home.failed / "a.jsonl").rename(home.line("high") / "a.jsonl")
    after = reopen(book)
    assert (get(after, job.id).state, get(after, job.id).priority) == ("queued", "high")
    assert not list(home.failed.iterdir())


def test_a_failed_file_deleted_with_its_report_is_forgotten(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.park(claim(book), "no good")
    (home.failed / "a.jsonl").unlink()
    after = reopen(book)
    assert get(after, job.id).state == "failed", "the report still tells of it"
    (home.failed / "a.jsonl.error.json").unlink()
    after = reopen(after)
    assert after.store.get(job.id) is None
    assert [one.outcome for one in after.store.history(10)] == ["failed"]


def test_a_file_waiting_to_be_checked_and_deleted_is_cancelled(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.check_again(job, "changed")
    (waiting,) = home.inbox.iterdir()
    after = reopen(book)
    assert get(after, job.id).state == "checking"
    waiting.unlink()
    after = reopen(after)
    assert after.store.get(job.id) is None


# ---------------------------------------------------------------- SQLite lost


def lose_sqlite(book: Book) -> None:
    book.store.close()
    for path in book.folders.home.root.glob("state.sqlite3*"):
        path.unlink()


def test_without_sqlite_the_lines_are_rebuilt_in_the_order_of_time_and_name(home: Home, book: Book) -> None:
    for number, name in enumerate(["c.jsonl", "a.jsonl", "b.jsonl"]):
        job = accept(book, name)
        os.utime(book.path(job), ns=(0, 10**18 + (number == 2) * 10**9))
    accept(book, "urgent.jsonl", priority="high")
    lose_sqlite(book)
    after = open_book(home)
    recover(after)
    assert recover(after) == []
    assert_agree(after)
    listed = after.store.listed()
    assert [job.file for job in listed] == ["urgent.jsonl", "a.jsonl", "c.jsonl", "b.jsonl"]
    assert all(job.samples == 2 and len(job.sha256) == 64 for job in listed)


def test_without_sqlite_the_ledger_tells_what_was_trained(home: Home, book: Book) -> None:
    jobs = [accept(book, f"{number}.jsonl") for number in range(4)]
    finish(book, claim(book))
    committed, held = claim(book), None
    book.trained(committed, stats(2))
    held = claim(book)
    write_checkpoint(home, 1, (entry(jobs[0]), entry(jobs[1])), (cursor(jobs[2], 1),))
    lose_sqlite(book)
    after = open_book(home)
    recover(after)
    assert recover(after) == []
    assert_agree(after)
    assert {path.name for path in home.done.iterdir()} == {"0.jsonl", "1.jsonl"}
    assert {row.id for row in after.store.history(10, "trained")} == {jobs[0].id, jobs[1].id}
    again = claim(after)
    assert (again.id, again.tally.progress) == (held.id, 1), "its id and its cursor are known by its content"
    after.trained(again, stats(2))
    assert claim(after).file == "3.jsonl"


def test_a_rebuild_that_died_half_way_is_gone_on_with(home: Home, book: Book) -> None:
    """The rest is not taken for files that people added: the ledger still knows them by their content."""
    jobs = [accept(book, f"{number}.jsonl") for number in range(4)]
    write_checkpoint(home, 1, (), tuple(cursor(job, 1) for job in jobs))
    lose_sqlite(book)
    disk = FullDisk()
    half = open_book(home, disk)
    disk.full_at = len(disk.steps) + 4
    with pytest.raises(OSError, match="No space left"):
        recover(half)
    assert 0 < half.store.counts().normal < 4
    half.store.close()
    after = open_book(home)
    recover(after)
    assert {job.id for job in after.store.listed()} == {job.id for job in jobs}
    assert all(get(after, job.id).tally.progress == 1 for job in jobs)
    after.store.close()
    assert not open_book(home).store.created


def test_without_sqlite_a_begun_file_is_known_again_however_large(
    home: Home, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, fresh = accept(book, "begun.jsonl"), accept(book, "fresh.jsonl")
    write_checkpoint(home, 1, (), (cursor(begun, 1),))
    lose_sqlite(book)
    monkeypatch.setattr("actors.queue.adoption.READ_AT_ONCE", 0)
    after = open_book(home)
    recover(after)
    assert [(job.id, get(after, job.id).tally.progress) for job in after.store.listed()] == [(begun.id, 1)]
    assert (home.inbox / "normal" / fresh.name).exists(), "what was not begun is validated anew"


def test_without_sqlite_numbered_names_find_their_own_again(home: Home, book: Book) -> None:
    accept(book, "a.jsonl")
    path = put(home, "a.jsonl", ROW * 9)
    accept_all(book, [accept_message(path)])
    assert (home.line("normal") / "a.jsonl~2").exists()
    lose_sqlite(book)
    after = open_book(home)
    recover(after)
    assert [job.file for job in after.store.listed()] == ["a.jsonl", "a.jsonl"]


def test_without_sqlite_failed_files_are_known_by_their_reports(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.park(claim(book), "no good")
    put(home, "bare.jsonl", ROW, home.failed)
    lose_sqlite(book)
    after = open_book(home)
    recover(after)
    assert recover(after) == []
    assert (get(after, job.id).state, get(after, job.id).last_error) == ("failed", "no good")
    assert after.store.counts().failed == 2
    assert_agree(after)


# ---------------------------------------------------------------- folders on several file systems


class DyingBeforeRemoval(Disk):
    """Ends a move to another file system between the copy and the removal."""

    def unlink(self, path: Path, missing_ok: bool = False) -> None:
        raise InterruptedError("dead")


def test_an_inbox_on_another_file_system_makes_one_job_of_a_copy_whose_removal_is_missing(home: Home) -> None:
    with elsewhere(home.inbox) as inbox:
        book = open_book(home, DyingBeforeRemoval())
        path = put(home, "a.jsonl", ROW)
        with pytest.raises(InterruptedError):
            accept_all(book, [accept_message(path)])
        assert (inbox / "a.jsonl").exists()
        assert (home.line("normal") / "a.jsonl").exists()
        after = reopen(book)
        assert not (inbox / "a.jsonl").exists()
        assert after.store.counts().normal == 1


def test_the_same_content_dropped_again_is_another_job(home: Home) -> None:
    with elsewhere(home.inbox):
        book = open_book(home)
        first = put(home, "a.jsonl", ROW)
        accept_all(book, [accept_message(first)])
        second = put(home, "a.jsonl", ROW)
        os.utime(second, ns=(0, second.stat().st_mtime_ns + 10**10))
        book.store.close()
        after = open_book(home)
        recover(after)
        assert second.exists()


def test_within_one_file_system_nothing_is_taken_for_a_copy(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    twin = home.inbox / "a.jsonl"
    shutil.copy2(book.path(job), twin)
    book.store.close()
    recover(open_book(home))
    assert twin.exists()


# ---------------------------------------------------------------- leftovers and retention


def test_a_report_without_its_file_is_removed(home: Home, book: Book) -> None:
    put(home, "a.jsonl.error.json", "{}", home.failed)
    accept(book, "a.jsonl")
    after = reopen(book)
    assert not list(home.failed.iterdir())
    assert after.store.counts().normal == 1


def test_done_files_are_kept_while_a_checkpoint_lacks_them(home: Home, book: Book) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        accept(book, name)
    first = finish(book, claim(book))
    second = finish(book, claim(book))
    write_checkpoint(home, 1, (entry(first),))
    write_checkpoint(home, 2, (entry(first), entry(second)))
    assert expire(book, home, 7 * 86400) == 0, "not old enough"
    assert expire(book, home, 0) == 1
    assert [path.name for path in home.done.iterdir()] == ["b.jsonl"]
    (home.checkpoints / "step-00000001-0000000a" / "manifest.json").unlink()  # torn: nothing can be resumed from it
    assert expire(book, home, 0) == 1
    assert book.store.counts().done == 0
    assert book.store.history(10)[0].outcome == "trained"
    reopen(book)


def test_done_files_are_kept_while_nothing_is_known(home: Home, book: Book) -> None:
    accept(book, "a.jsonl")
    finish(book, claim(book))
    assert expire(book, home, 0) == 0
    name = write_checkpoint(home, 1)
    (home.checkpoints / name / "manifest.json").write_text('{"format": 99}')
    assert expire(book, home, 0) == 0


def test_head_beside_no_checkpoint_is_a_fresh_start(home: Home, book: Book) -> None:
    write_head(home, None)
    accept(book, "a.jsonl")
    after = reopen(book)
    assert after.store.counts().normal == 1
