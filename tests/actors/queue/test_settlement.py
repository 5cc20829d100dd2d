"""Ledger against rows, where there is much of it."""

from __future__ import annotations

import sqlite3

import msgspec

from protocol.home import Home
from supervisor.durable import Disk
from tests.actors.queue.homes import accept, entry, first_book, open_book, recover, write_checkpoint


class CountingDisk(Disk):
    """Counts commits: each waits for the platter."""

    def __init__(self) -> None:
        self.commits = 0

    def commit(self, connection: sqlite3.Connection) -> None:
        self.commits += 1
        super().commit(connection)


def test_a_long_ledger_is_taken_over_with_one_commit_and_one_line(home: Home) -> None:
    """After a loss of SQLite the ledger holds every job of many months."""
    book = first_book(home)
    one = entry(accept(book, "a.jsonl"))
    book.store.close()
    for path in home.root.glob("state.sqlite3*"):
        path.unlink()
    (home.line("normal") / "a.jsonl").unlink()
    committed = tuple(msgspec.structs.replace(one, job=f"job{number}") for number in range(1000))
    write_checkpoint(home, 1, committed)
    disk = CountingDisk()
    after = open_book(home, disk)
    disk.commits = 0
    assert recover(after) == ["1000 of the jobs in the ledger were not in the history: added"]
    assert disk.commits < 5
    assert [row.id for row in after.store.history(2000)] == [f"job{number}" for number in reversed(range(1000))]
    assert recover(after) == []
