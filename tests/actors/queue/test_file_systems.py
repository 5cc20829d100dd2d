"""Reconciliation at start where the inbox lies on another file system, so that a move is a copy and a removal."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from actors.queue.book import Book
from protocol.home import Home
from supervisor.durable import Disk
from tests.actors.queue.homes import (
    ROW,
    accept,
    accept_all,
    accept_message,
    elsewhere,
    open_book,
    put,
    recover,
    reopen,
)


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
