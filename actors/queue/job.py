"""One job as the queue knows it: a row of the table ``jobs``."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

import msgspec

from actors.queue.attempts import Tally
from protocol.messages.common import Priority
from protocol.messages.queue import HistoryEntry, JobState, JobStats, JobView, Outcome

State = Literal["checking", "queued", "processing", "trained", "failed", "done", "cancelled"]
"""``checking``: its payload is in the inbox, to be validated again; ``trained``: all rows consumed, awaiting its
checkpoint; ``cancelled``: over, its payload is about to be deleted. The others say what they mean."""

Place = Literal["inbox", "high", "normal", "low", "processing", "failed", "done"]
"""The folder that a payload belongs to: the inbox, or one of those below ``queue/``."""
PLACES: tuple[Place, ...] = get_args(Place)

OPEN_STATES: tuple[State, ...] = ("checking", "queued", "processing", "trained")
"""Jobs of which something is still to be done."""


class Stamp(msgspec.Struct, frozen=True):
    """What tells one content of a file from another without reading it. A rename keeps it."""

    bytes: int
    mtime_ns: int


class Job(msgspec.Struct, frozen=True):
    """A job and where its payload lies. Immutable: a change is a new value, committed before the payload moves."""

    id: str
    file: str
    """The name that the user gave it, printable."""
    state: State
    priority: Priority
    place: Place
    name: str
    """Its name inside ``place``: ``file``, unless that was taken or too long."""
    seq: int
    """Order within its line."""
    sha256: str
    stamp: Stamp
    samples: int
    submitted_at: datetime
    rank: int | None = None
    """Order in which jobs were begun; None if it was not, or was sent back to a line. The begun come before all
    lines."""
    origin: str | None = None
    """Where the payload lay before the last move, relative to the home: there it is if the move did not happen."""
    refused: tuple[int, ...] = ()
    """Numbers of the lines that are left out."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    interruptions: int = 0
    last_error: str | None = None
    stats: JobStats = JobStats()
    tally: Tally = Tally()

    def view(self) -> JobView:
        """Return what ``queue list`` shows of it."""
        shown: JobState = "failed" if self.state == "failed" else "processing"
        return JobView(
            id=self.id,
            file=self.file,
            priority=self.priority,
            state="queued" if self.state in ("queued", "checking") else shown,
            attempts=self.tally.attempts,
            last_error=self.last_error,
            bytes=self.stamp.bytes,
            sha256=self.sha256,
            samples=self.samples,
            submitted_at=self.submitted_at,
        )

    def ended(self, outcome: Outcome, at: datetime) -> HistoryEntry:
        """Return the entry of the history that this end of the job makes."""
        return HistoryEntry(
            id=self.id,
            file=self.file,
            sha256=self.sha256,
            outcome=outcome,
            samples=self.stats.rows,
            held_out=self.stats.held_out,
            refused=self.stats.refused or len(self.refused),
            tokens=self.stats.tokens,
            steps=self.stats.steps,
            first_loss=self.stats.first_loss,
            last_loss=self.stats.last_loss,
            version=None,
            started_at=self.started_at,
            finished_at=at,
            interruptions=self.interruptions,
        )
