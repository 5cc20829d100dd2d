"""Reconciliation at start: what people did to the folders by hand."""

from __future__ import annotations

import os

from actors.queue.book import Book
from protocol.home import Home
from tests.actors.queue.homes import (
    ROW,
    accept,
    claim,
    get,
    open_book,
    put,
    recover,
    reopen,
    where,
)


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
