"""Reconciliation at start without SQLite: the folders, the reports and the ledger tell."""

from __future__ import annotations

import os

import pytest

from actors.queue.book import Book
from protocol.home import Home
from supervisor.testing import FullDisk
from tests.actors.queue.homes import (
    ROW,
    accept,
    accept_all,
    accept_message,
    assert_agree,
    claim,
    cursor,
    entry,
    finish,
    get,
    open_book,
    put,
    recover,
    stats,
    write_checkpoint,
)


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
