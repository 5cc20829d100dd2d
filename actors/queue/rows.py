"""How a job and an entry of the history stand in SQLite: one tuple each, in the order of the columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from actors.queue.attempts import Tally
from actors.queue.job import Job, Stamp
from protocol.messages.queue import HistoryEntry, JobStats

JOB_COLUMNS = (
    "id", "file", "state", "priority", "place", "name", "seq", "rank", "origin", "sha256", "bytes", "mtime_ns",
    "samples", "refused", "submitted_at", "started_at", "finished_at", "interruptions", "last_error", "stats",
    "attempts", "failures", "progress", "progress_at_failure", "vanished", "lost", "live_boot",
    "lost_boot",
)  # fmt: skip
HISTORY_COLUMNS = (
    "id", "file", "sha256", "outcome", "samples", "held_out", "refused", "tokens", "steps", "first_loss", "last_loss",
    "version", "started_at", "finished_at", "interruptions",
)  # fmt: skip

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_STATS = JobStats()
_NO_STATS_TEXT = msgspec.json.encode(_NO_STATS).decode()
_stats = msgspec.json.Decoder(JobStats)
_lines = msgspec.json.Decoder(tuple[int, ...])


def micros(at: datetime) -> int:
    """Return the time (aware) in whole microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def moment(number: int) -> datetime:
    """Return the time of so many microseconds since 1970, UTC."""
    return _EPOCH + number * _MICROSECOND


def job_row(job: Job) -> tuple[Any, ...]:
    """Return the job in the order of ``JOB_COLUMNS``."""
    tally = job.tally
    return (
        job.id, job.file, job.state, job.priority, job.place, job.name, job.seq, job.rank, job.origin, job.sha256,
        job.stamp.bytes, job.stamp.mtime_ns, job.samples,
        msgspec.json.encode(job.refused).decode() if job.refused else "[]",
        micros(job.submitted_at), _optional(job.started_at), _optional(job.finished_at), job.interruptions,
        job.last_error, _NO_STATS_TEXT if job.stats is _NO_STATS else msgspec.json.encode(job.stats).decode(),
        tally.attempts, tally.failures, tally.progress, tally.progress_at_failure, tally.vanished, tally.lost,
        tally.live_boot, tally.lost_boot,
    )  # fmt: skip


def job_of(row: tuple[Any, ...]) -> Job:
    """Return the job of a row in the order of ``JOB_COLUMNS``."""
    (
        job_id, file, state, priority, place, name, seq, rank, origin, sha256, size, mtime_ns, samples, refused,
        submitted, started, finished, interruptions, last_error, stats, *tally,
    ) = row  # fmt: skip
    return Job(
        id=job_id,
        file=file,
        state=state,
        priority=priority,
        place=place,
        name=name,
        seq=seq,
        rank=rank,
        origin=origin,
        sha256=sha256,
        stamp=Stamp(size, mtime_ns),
        samples=samples,
        refused=() if refused == "[]" else _lines.decode(refused),
        submitted_at=moment(submitted),
        started_at=None if started is None else moment(started),
        finished_at=None if finished is None else moment(finished),
        interruptions=interruptions,
        last_error=last_error,
        stats=_NO_STATS if stats == _NO_STATS_TEXT else _stats.decode(stats),
        tally=Tally(*tally),
    )


def history_row(entry: HistoryEntry) -> tuple[Any, ...]:
    """Return the entry in the order of ``HISTORY_COLUMNS``."""
    return (
        entry.id, entry.file, entry.sha256, entry.outcome, entry.samples, entry.held_out, entry.refused, entry.tokens,
        entry.steps, entry.first_loss, entry.last_loss, entry.version, _optional(entry.started_at),
        micros(entry.finished_at), entry.interruptions,
    )  # fmt: skip


def history_of(row: tuple[Any, ...]) -> HistoryEntry:
    """Return the entry of a row in the order of ``HISTORY_COLUMNS``."""
    values = dict(zip(HISTORY_COLUMNS, row, strict=True))
    values["started_at"] = None if values["started_at"] is None else moment(values["started_at"])
    values["finished_at"] = moment(values["finished_at"])
    return HistoryEntry(**values)


def _optional(at: datetime | None) -> int | None:
    return None if at is None else micros(at)
