"""Ledger against rows: the ledger of HEAD's checkpoint wins, in both directions.

A job that the ledger calls committed is done, whatever SQLite says. One that SQLite calls done and the ledger does
not is queued again, ahead, at its cursor: its rank puts it where it was in the order of training.
"""

from __future__ import annotations

import msgspec

from actors.queue.book import Book
from actors.queue.ledger import first_versions
from protocol.home import Home
from protocol.messages.queue import HistoryEntry
from protocol.records import Ledger, LedgerEntry


def settle(book: Book, ledger: Ledger) -> list[str]:
    """Make rows and payloads agree with the ledger; return what was done, in words. A second time, nothing is."""
    said = []
    store = book.store
    committed = {entry.job for entry in ledger.committed}
    late, missing = [], []
    for entry in ledger.committed:
        job = store.get(entry.job)
        if job is None:
            if not store.was_trained(entry.job):
                missing.append(entry)
        elif job.state != "done":
            late.append((job, entry.stats))
            said.append(f"{job.file} ({job.id}): committed in the checkpoint: done")
    if missing:  # after a loss of SQLite these are all that were ever trained: one commit, and one line
        with store.transaction():
            for entry in missing:
                store.add_history(_from_ledger(book, entry))
        said.append(f"{len(missing)} of the jobs in the ledger were not in the history: added")
    if late:
        book.committed(late, {})
    for job_id in store.done_ids():
        if job_id not in committed and (job := store.get(job_id)) is not None:
            book.uncommitted(job)
            said.append(f"{job.file} ({job.id}): done here, but no checkpoint on HEAD's line holds it: queued again")
    book.progress({cursor.job: cursor.consumed for cursor in ledger.cursors})
    for cursor in ledger.cursors:
        job = store.get(cursor.job)
        if job is not None and job.stats != cursor.stats:
            book.save(msgspec.structs.replace(job, stats=cursor.stats))
    return said


def name_versions(book: Book, home: Home) -> None:
    """Note in the history which version was the first to hold each job, where that news was lost in a crash."""
    unpublished = set(book.store.unpublished())
    for version, jobs in first_versions(home, unpublished).items():
        with book.store.transaction():
            book.store.set_version(sorted(jobs), version)


def _from_ledger(book: Book, entry: LedgerEntry) -> HistoryEntry:
    stats = entry.stats
    return HistoryEntry(
        id=entry.job,
        file=entry.file,
        sha256=entry.sha256,
        outcome="trained",
        samples=stats.rows,
        held_out=stats.held_out,
        refused=stats.refused,
        tokens=stats.tokens,
        steps=stats.steps,
        first_loss=stats.first_loss,
        last_loss=stats.last_loss,
        version=None,
        started_at=None,
        finished_at=book.now(),
        interruptions=0,
    )
