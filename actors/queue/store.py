"""The queue's database: one connection, one writer, and not a word about folders.

SQLite in WAL mode with ``synchronous=FULL``: a committed row survives a power cut. Every change happens inside
``with store.transaction():``, which commits through :class:`supervisor.durable.Disk`. The store is used by one
thread at a time; which one does not matter.
"""

from __future__ import annotations

import importlib.resources
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.queue.job import OPEN_STATES, Job, Place, State
from actors.queue.rows import HISTORY_COLUMNS, JOB_COLUMNS, history_of, history_row, job_of, job_row, moment
from protocol.messages.common import PRIORITIES, Priority
from protocol.messages.queue import HistoryEntry, JobState, JobView, Outcome, QueueCounts
from protocol.records import NewerFormat
from supervisor.durable import Disk

APPLICATION_ID = 0x53544F4B
"""``STOK``: what ``file`` and a careful reader of the header find."""
MIGRATIONS: tuple[str, ...] = tuple(
    importlib.resources.files(__package__).joinpath(name).read_text("utf-8") for name in ("schema.sql", "schema_2.sql")
)
"""Each script takes the database one ``user_version`` forward. Append only."""

_STATES: tuple[State, ...] = (*OPEN_STATES, "failed", "done", "cancelled")
_BEGUN_STATES: tuple[State, ...] = ("queued", "processing", "trained", "done")
_ORDER: dict[State, str] = {"processing": "rank", "trained": "rank", "failed": "finished_at", "done": "finished_at"}

_SELECT = f"SELECT {', '.join(JOB_COLUMNS)} FROM jobs "
_VIEW = (
    "SELECT rank, id, file, priority, state, attempts, last_error, bytes, sha256, samples, submitted_at "
    "FROM jobs WHERE "
)
_HISTORY = f"SELECT {', '.join(HISTORY_COLUMNS)} FROM history "
_PUT = (
    f"INSERT INTO jobs ({', '.join(JOB_COLUMNS)}) VALUES ({', '.join('?' * len(JOB_COLUMNS))}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in JOB_COLUMNS[1:])}"
)
_ADD_HISTORY = (
    f"INSERT OR REPLACE INTO history ({', '.join(HISTORY_COLUMNS)}) VALUES ({', '.join('?' * len(HISTORY_COLUMNS))})"
)


class Damaged(Exception):
    """The database does not pass SQLite's own check, or is none."""


class Store:
    """Jobs, their order, history and the gate's row.

    Raises (from the constructor):
        Damaged: the file is torn or is not the queue's database.
        NewerFormat: a newer stokehold wrote it.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._disk = disk
        self.created = False
        """True if there was no database: the caller then rebuilds it from the folders, and says when it is done."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            if isinstance(
                error, sqlite3.OperationalError
            ):  # full, locked, not readable: nothing is wrong with its bytes
                raise
            raise Damaged(f"{path}: {error}") from error
        except (Damaged, NewerFormat):
            self._db.close()
            raise
        if self.created:
            disk.sync_folder(path.parent)
        self._counts: Counter[tuple[State, Priority]] = Counter()
        self._pending: Counter[tuple[State, Priority]] = Counter()
        for state in _STATES:
            rows = self._db.execute(f"SELECT priority, count(*) FROM jobs WHERE {_where(state)} GROUP BY priority")
            self._counts.update({(state, priority): number for priority, number in rows})
        self._last_seq = max(self._greatest("seq", "queued", priority) for priority in PRIORITIES)
        self._last_seq = max([self._last_seq, *(job.seq for job in self.in_state("checking"))])
        self._last_rank = max(self._greatest("rank", state) for state in _BEGUN_STATES)

    def rebuilt(self) -> None:
        """What the folders hold has its rows: from now on a file without one was put there by people."""
        with self.transaction():
            self._db.execute("UPDATE gate SET rebuilding = 0")
        self.created = False

    def close(self) -> None:
        """Fold the write-ahead log into the database and let go of it."""
        self._db.close()

    # ------------------------------------------------------------ changes

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block did, or roll it back if it raised."""
        self._pending.clear()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._disk.commit(self._db)
        finally:
            # True only if one of the two raised; SQLite has already rolled back by itself when the disk is full.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        for key, change in self._pending.items():
            self._counts[key] += change

    def put(self, job: Job) -> None:
        """Add the job, or replace its row."""
        self._count_out(job.id)
        self._db.execute(_PUT, job_row(job))
        self._pending[job.state, job.priority] += 1

    def forget(self, job: str) -> None:
        """Delete the job's row; its history stays."""
        self._count_out(job)
        self._db.execute("DELETE FROM jobs WHERE id = ?", (job,))

    def add_history(self, entry: HistoryEntry) -> None:
        """Append an entry. A second ``trained`` of one job takes the place of the first."""
        self._db.execute(_ADD_HISTORY, history_row(entry))

    def withdraw_trained(self, job: str) -> None:
        """Take back that the job was trained: no ledger says so any more."""
        self._db.execute("DELETE FROM history WHERE id = ? AND outcome = 'trained'", (job,))

    def set_version(self, jobs: Iterable[str], version: int) -> None:
        """The version is the first that holds these jobs; those that have one keep it."""
        self._db.executemany(
            "UPDATE history SET version = ? WHERE id = ? AND outcome = 'trained' AND version IS NULL",
            [(version, job) for job in jobs],
        )

    def set_gate(self, row: tuple[bool, bool, bool, str | None, str | None]) -> None:
        """Replace the gate: paused, release_device, stop_after, lease_holder, lease_token."""
        self._db.execute(
            "UPDATE gate SET paused = ?, release_device = ?, stop_after = ?, lease_holder = ?, lease_token = ?", row
        )

    def next_seq(self) -> int:
        """Return a place at the end of every line."""
        self._last_seq += 1
        return self._last_seq

    def next_rank(self) -> int:
        """Return the rank of the job that is begun now."""
        self._last_rank += 1
        return self._last_rank

    # ------------------------------------------------------------ questions

    def gate(self) -> tuple[bool, bool, bool, str | None, str | None]:
        """Return the gate's row, as :meth:`set_gate` takes it."""
        paused, release, stop_after, holder, token = self._db.execute(
            "SELECT paused, release_device, stop_after, lease_holder, lease_token FROM gate"
        ).fetchone()
        return bool(paused), bool(release), bool(stop_after), holder, token

    def get(self, job: str) -> Job | None:
        return self._one("WHERE id = ?", job)

    def at(self, place: Place, name: str) -> Job | None:
        return self._one("WHERE place = ? AND name = ?", place, name)

    def is_named(self, place: Place, name: str) -> bool:
        """Say whether a row has reserved this name."""
        row = self._db.execute("SELECT 1 FROM jobs WHERE place = ? AND name = ?", (place, name)).fetchone()
        return row is not None

    def matching(self, text: str) -> list[Job]:
        """Return the jobs of this id, else of this file name, else (at most two) whose id begins so."""
        if (job := self.get(text)) is not None:
            return [job]
        if named := self._all("WHERE file = ?", text):
            return named
        return self._all("WHERE id >= ? AND id < ? LIMIT 2", text, text + "\x7f") if text else []

    def begun(self) -> list[Job]:
        """Return the jobs that were begun and have rows left to train, in the order in which they were begun."""
        jobs = self._all(f"WHERE {_where('processing')}") + self._all(f"WHERE {_where('queued')} AND rank IS NOT NULL")
        return sorted(jobs, key=lambda job: job.rank or 0)

    def first_in_line(self) -> Job | None:
        """Return the next job that waits: high, normal, low; first come first served within."""
        for priority in PRIORITIES:
            job = self._one(f"WHERE {_where('queued')} AND priority = ? ORDER BY seq LIMIT 1", priority)
            if job is not None:
                return job
        return None

    def in_state(self, state: State) -> list[Job]:
        """Return all jobs in a state, in order."""
        return self._all(f"WHERE {_where(state)} ORDER BY {_ORDER.get(state, 'seq')}")

    def with_progress(self) -> list[Job]:
        """Return the jobs that the newest checkpoint known here holds a cursor of."""
        return self._all("WHERE progress > 0 AND state <> 'done'")

    def listed(self) -> list[JobView]:
        """Return what ``queue list`` shows: in the order in which they would be trained, then the failed.

        A list of a million takes seconds; it is made from no more columns than it shows.
        """
        begun = sorted(
            [*self._views(_where("processing")), *self._views(f"{_where('queued')} AND rank IS NOT NULL")],
            key=lambda one: one[0],
        )
        return [
            *(view for _, view in self._views(f"{_where('trained')} ORDER BY rank")),
            *(view for _, view in begun),
            *(
                view
                for priority in PRIORITIES
                for rank, view in self._views(f"{_where('queued')} AND priority = '{priority}' ORDER BY seq")
                if rank is None
            ),
            *(view for _, view in self._views(f"{_where('failed')} ORDER BY finished_at")),
        ]

    def names(self, place: Place) -> set[str]:
        """Return the names of all payloads that belong in a folder."""
        return {name for (name,) in self._db.execute("SELECT name FROM jobs WHERE place = ?", (place,))}

    def origins(self) -> Iterator[tuple[Place, str, str]]:
        """Yield, of every job that was ever moved, its place, its name, and where it was before."""
        yield from self._db.execute("SELECT place, name, origin FROM jobs WHERE origin IS NOT NULL")

    def done_ids(self) -> list[str]:
        return [job for (job,) in self._db.execute(f"SELECT id FROM jobs WHERE {_where('done')}")]

    def done_before(self, micros: int, limit: int) -> list[Job]:
        """Return the jobs that were done before this time, oldest first."""
        return self._all(f"WHERE {_where('done')} AND finished_at < ? ORDER BY finished_at LIMIT ?", micros, limit)

    def history(self, limit: int, outcome: Outcome | None = None) -> list[HistoryEntry]:
        """Return the newest entries, newest first."""
        where = "" if outcome is None else f"WHERE outcome = '{outcome}' "
        if outcome not in (None, "trained"):
            where += "AND outcome <> 'trained' "  # the rare ones have an index of their own
        return [history_of(row) for row in self._db.execute(_HISTORY + where + "ORDER BY n DESC LIMIT ?", (limit,))]

    def last_end(self, job: str) -> HistoryEntry | None:
        """Return how the job of this id ended last."""
        row = self._db.execute(_HISTORY + "WHERE id = ? ORDER BY n DESC LIMIT 1", (job,)).fetchone()
        return None if row is None else history_of(row)

    def was_trained(self, job: str) -> bool:
        return (
            self._db.execute("SELECT 1 FROM history WHERE id = ? AND outcome = 'trained'", (job,)).fetchone()
            is not None
        )

    def unpublished(self) -> list[str]:
        """Return the trained jobs of which no version is known that holds them."""
        rows = self._db.execute("SELECT id FROM history WHERE outcome = 'trained' AND version IS NULL ORDER BY n")
        return [job for (job,) in rows]

    def counts(self) -> QueueCounts:
        """Return how many jobs stand where, without reading a row."""
        by = self._counts

        def number(*states: State) -> int:
            return sum(by[state, priority] for state in states for priority in PRIORITIES)

        return QueueCounts(
            high=by["queued", "high"],
            normal=by["queued", "normal"],
            low=by["queued", "low"],
            processing=number("processing", "trained"),
            failed=number("failed"),
            done=number("done"),
        )

    def open_jobs(self) -> int:
        """Return how many jobs are not over."""
        return sum(self._counts[state, priority] for state in OPEN_STATES for priority in PRIORITIES)

    # ------------------------------------------------------------ inside

    def _open(self, path: Path) -> None:
        execute = self._db.execute
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "trusted_schema=OFF"):
            execute(f"PRAGMA {pragma}")
        (version,) = execute("PRAGMA user_version").fetchone()
        (application,) = execute("PRAGMA application_id").fetchone()
        if version > len(MIGRATIONS):
            raise NewerFormat(
                f"{path} has version {version}; this stokehold knows up to {len(MIGRATIONS)}: run the newer one"
            )
        if application not in (0, APPLICATION_ID) or (application == 0 and version > 0):
            raise Damaged(f"{path}: not a database of stokehold's")
        (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Damaged(f"{path}: {verdict}")
        if version < len(MIGRATIONS):
            execute("BEGIN IMMEDIATE")
            for statement in _statements("".join(MIGRATIONS[version:])):
                execute(statement)
            if version == 0:
                execute("UPDATE gate SET rebuilding = 1")
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            self._disk.commit(self._db)
        (rebuilding,) = execute("SELECT rebuilding FROM gate").fetchone()
        self.created = bool(rebuilding)

    def _count_out(self, job: str) -> None:
        before = self._db.execute("SELECT state, priority FROM jobs WHERE id = ?", (job,)).fetchone()
        if before is not None:
            self._pending[before] -= 1

    def _greatest(self, column: str, state: State, priority: Priority | None = None) -> int:
        line = "" if priority is None else f" AND priority = '{priority}'"
        (number,) = self._db.execute(f"SELECT max({column}) FROM jobs WHERE {_where(state)}{line}").fetchone()
        return number or 0

    def _one(self, where: str, *arguments: Any) -> Job | None:
        row = self._db.execute(_SELECT + where, arguments).fetchone()
        return None if row is None else job_of(row)

    def _views(self, where: str) -> Iterator[tuple[Any, JobView]]:
        """Yield rank and view of the rows."""
        return (_view_of(row) for row in self._db.execute(_VIEW + where))

    def _all(self, where: str, *arguments: Any) -> list[Job]:
        return [job_of(row) for row in self._db.execute(_SELECT + where, arguments)]


def _view_of(row: tuple[Any, ...]) -> tuple[Any, JobView]:
    rank, job, file, priority, state, attempts, last_error, size, sha256, samples, submitted = row
    shown: JobState = "processing" if state == "trained" else state
    view = JobView(job, file, priority, shown, attempts, last_error, size, sha256, samples, moment(submitted))
    return rank, view


def _where(state: State) -> str:
    """Return the condition for a state, spelled so that SQLite sees which partial index answers it."""
    begun = " AND rank IS NOT NULL" if state in ("processing", "trained") else ""
    return f"state = '{state}'{begun}"


def _statements(script: str) -> Iterator[str]:
    """Split a script, since ``executescript`` would commit behind our back."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
