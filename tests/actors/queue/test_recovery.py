"""Reconciliation at start: what SQLite, folders and ledger say, and what is made of it."""

from __future__ import annotations

import json

import pytest

from actors.queue.book import Book
from actors.queue.retention import expire
from protocol.home import Home
from protocol.messages.common import Priority
from protocol.records import Ledger, encode_record
from tests.actors.queue.homes import (
    BOOT,
    ROW,
    accept,
    claim,
    cursor,
    entry,
    finish,
    get,
    open_book,
    put,
    recover,
    reopen,
    stats,
    write_checkpoint,
    write_head,
)

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
