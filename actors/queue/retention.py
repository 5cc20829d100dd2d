"""How long a trained file stays in ``done/``: ``queue.keep_done``, and while any checkpoint lacks its job."""

from __future__ import annotations

from datetime import timedelta

from actors.queue.book import Book
from actors.queue.ledger import committed_everywhere
from actors.queue.rows import micros
from protocol.home import Home

AT_ONCE = 500
"""Files deleted in one go, so that nobody waits long for the queue."""


def expire(book: Book, home: Home, keep_done: float) -> int:
    """Delete what has been kept for long enough (seconds); return how many files that were."""
    over = book.store.done_before(micros(book.now() - timedelta(seconds=keep_done)), AT_ONCE)
    if not over:
        return 0
    safe = committed_everywhere(home)
    if safe is None:
        return 0
    deleted = [job for job in over if job.id in safe]
    for job in deleted:
        book.bury(job)
    return len(deleted)
