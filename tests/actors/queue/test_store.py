"""The database: what it is, what it survives, and that a question costs no more at many rows than at few."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from actors.queue.attempts import Tally
from actors.queue.job import Job, Stamp
from actors.queue.rows import micros, moment
from actors.queue.store import APPLICATION_ID, MIGRATIONS, Damaged, Store
from protocol.messages.queue import JobStats
from protocol.records import NewerFormat
from supervisor.durable import Disk
from tests.actors.queue.homes import START, accept, make_home, open_book


def job(number: int, **changes: object) -> Job:
    values: dict[str, object] = {
        "id": f"{number:026d}",
        "file": f"{number}.jsonl",
        "state": "queued",
        "priority": "normal",
        "place": "normal",
        "name": f"{number}.jsonl",
        "seq": number,
        "sha256": "0" * 64,
        "stamp": Stamp(10, 123456789),
        "samples": 2,
        "submitted_at": START + timedelta(seconds=number),
    }
    return Job(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state.sqlite3", Disk())


def test_the_file_says_what_it_is_and_is_durable(tmp_path: Path, store: Store) -> None:
    assert store.created
    store.rebuilt()
    store.close()
    with sqlite3.connect(tmp_path / "state.sqlite3") as raw:
        assert raw.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert raw.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()
    again = Store(tmp_path / "state.sqlite3", Disk())
    assert not again.created
    assert again._db.execute("PRAGMA synchronous").fetchone() == (2,)
    again.close()


def test_a_job_comes_back_as_it_was(store: Store) -> None:
    full = job(
        1,
        state="trained",
        place="processing",
        rank=4,
        origin="queue/normal/1.jsonl",
        refused=(2, 9),
        started_at=START,
        interruptions=3,
        last_error="no",
        stats=JobStats(samples=5, first_loss=1.5),
        tally=Tally(1, 2, 3, 4, 5, 6, "boot", "another boot"),
    )
    with store.transaction():
        store.put(full)
    assert store.get(full.id) == full
    assert store.at("processing", "1.jsonl") == full


def test_times_keep_their_microseconds() -> None:
    at = START + timedelta(microseconds=123457)
    assert moment(micros(at)) == at


def test_counts_follow_and_a_failed_commit_changes_nothing(tmp_path: Path) -> None:
    class Full(Disk):
        full = False

        def commit(self, connection: sqlite3.Connection) -> None:
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            super().commit(connection)

    disk = Full()
    store = Store(tmp_path / "state.sqlite3", disk)
    with store.transaction():
        store.put(job(1))
        store.put(job(2, priority="high", place="high"))
    assert (store.counts().normal, store.counts().high, store.open_jobs()) == (1, 1, 2)
    disk.full = True
    with pytest.raises(sqlite3.OperationalError), store.transaction():
        store.put(job(3))
        store.forget(job(1).id)
    disk.full = False
    assert (store.counts().normal, store.counts().high) == (1, 1)
    assert store.get(job(3).id) is None
    with store.transaction():
        store.put(job(1, state="failed", place="failed"))
    assert (store.counts().normal, store.counts().failed) == (0, 1)
    before = store.counts()
    store.close()
    again = Store(tmp_path / "state.sqlite3", Disk())
    assert again.counts() == before
    again.close()


def test_order_and_rank_go_on_after_a_restart(tmp_path: Path, store: Store) -> None:
    with store.transaction():
        store.put(job(1, seq=store.next_seq(), rank=store.next_rank()))
        store.put(job(2, seq=store.next_seq(), state="done", place="done", rank=store.next_rank()))
        store.put(job(3, seq=store.next_seq(), state="checking", place="inbox"))
    store.close()
    again = Store(tmp_path / "state.sqlite3", Disk())
    assert again.next_seq() == 4
    assert again.next_rank() == 3
    again.close()


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path, store: Store) -> None:
    store.close()
    path = tmp_path / "state.sqlite3"
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(NewerFormat):
        Store(path, Disk())
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["noise", "page", "foreign"])
def test_damage_is_recognised(tmp_path: Path, store: Store, damage: str) -> None:
    with store.transaction():
        for number in range(500):
            store.put(job(number))
    store.close()
    path = tmp_path / "state.sqlite3"
    if damage == "noise":
        path.write_bytes(b"this is no database at all" * 100)
    elif damage == "page":
        data = bytearray(path.read_bytes())
        data[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
        path.write_bytes(data)
    else:
        path.unlink()
        with sqlite3.connect(path) as raw:
            raw.execute("PRAGMA application_id = 7")
            raw.execute("CREATE TABLE cats (name TEXT)")
        raw.close()
    with pytest.raises(Damaged):
        Store(path, Disk())


def test_every_question_of_the_hot_path_uses_an_index(store: Store) -> None:
    """The plans that make a million rows as cheap as ten: no scan of a table, no sort of a line.

    A scan of a partial index is a look at nothing but the rows asked for.
    """
    questions: list[str] = []
    store._db.set_trace_callback(questions.append)
    with store.transaction():
        store.put(job(1))
    store.first_in_line(), store.begun(), store.get("x"), store.at("high", "x"), store.is_named("high", "x")
    store.in_state("processing"), store.in_state("trained"), store.in_state("checking"), store.in_state("cancelled")
    (
        store.with_progress(),
        store.done_before(5, 10),
        store.matching("1.jsonl"),
        store.matching("nobody"),
        store.names("done"),
    )
    (
        store.listed(),
        store.was_trained("x"),
        store.last_end("x"),
        store.unpublished(),
        store.history(10),
        store.history(10, "failed"),
    )
    store._db.set_trace_callback(None)
    asked = [question for question in questions if question.startswith(("SELECT", "DELETE"))]
    assert len(asked) > 15
    for question in asked:
        plan = " | ".join(row[3] for row in store._db.execute("EXPLAIN QUERY PLAN " + question))
        if "FROM history" in question and "WHERE" not in question:
            assert plan == "SCAN history", plan  # by row id, newest first, up to the limit
            continue
        assert "SCAN" not in plan.replace("SCAN jobs USING INDEX", "").replace("SCAN history USING", ""), (
            question,
            plan,
        )
        few = any(state in question for state in ("'processing'", "'trained'", "'checking'", "'cancelled'"))
        assert few or "TEMP B-TREE" not in plan, f"{question}\n{plan}"


def test_trained_stands_in_history_once(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    book = open_book(home)
    one = accept(book, "a.jsonl")
    with book.store.transaction():
        book.store.add_history(one.ended("failed", START))
        book.store.add_history(one.ended("trained", START))
        book.store.add_history(one.ended("trained", START + timedelta(seconds=5)))
    assert [entry.outcome for entry in book.store.history(10)] == ["trained", "failed"]
    assert book.store.history(10, "trained")[0].finished_at == START + timedelta(seconds=5)
    assert len(book.store.history(1)) == 1
    with book.store.transaction():
        book.store.set_version([one.id], 4)
        book.store.set_version([one.id], 5)
    assert book.store.history(10)[0].version == 4, "the first version that holds it"


def test_the_golden_database_of_version_1_still_opens(tmp_path: Path) -> None:
    """A database written by the first version, as SQL text, so that a later migration meets real rows."""
    path = tmp_path / "state.sqlite3"
    golden = Path(__file__).with_name("golden_v1.sql").read_text()
    raw = sqlite3.connect(path)
    raw.executescript(golden)
    raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    raw.execute("PRAGMA user_version = 1")
    raw.commit()
    raw.close()
    store = Store(path, Disk())
    assert store.counts().normal == 1
    assert [entry.outcome for entry in store.history(5)] == ["trained"]
    assert store.gate()[0] is True
    listed = store.listed()
    assert listed[0].file == "waiting.jsonl"
    assert [job.tally for job in store.in_state("queued")] == [Tally()], "what the first version did not know of"
    store.close()
    assert Store(path, Disk()).counts().normal == 1, "and it has been brought up to date for good"
