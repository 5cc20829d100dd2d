"""Jobs on their walk through the folders: rows and payloads at each step."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from actors.queue import attempts
from actors.queue.book import Book
from actors.queue.folders import LONGEST, fitting
from actors.queue.intake import Intake, NotAsRead
from protocol.home import Home
from protocol.messages.common import BadLine
from protocol.messages.queue import Accepted, Refuse
from supervisor.durable import Disk
from tests.actors.queue.homes import (
    ROW,
    accept,
    accept_all,
    accept_message,
    assert_agree,
    claim,
    first_book,
    get,
    put,
    reopen,
    stats,
)


def test_a_file_walks_from_inbox_to_done(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    assert (home.line("normal") / "a.jsonl").exists()
    assert job.samples == 2
    held = claim(book)
    assert held.id == job.id
    assert (home.processing / "a.jsonl").exists()
    book.trained(held, stats(2))
    book.committed([(get(book, job.id), stats(2))], {})
    assert (home.done / "a.jsonl").exists()
    assert_agree(book)
    (entry,) = book.store.history(10)
    assert (entry.id, entry.outcome, entry.samples, entry.interruptions) == (job.id, "trained", 2, 0)
    assert entry.started_at is not None
    assert entry.started_at < entry.finished_at
    assert book.claim() is None


def test_lines_are_served_high_normal_low_and_first_come_first_served(book: Book) -> None:
    for name, priority in [("1", "low"), ("2", "normal"), ("3", "high"), ("4", "normal"), ("5", "high")]:
        accept(book, f"{name}.jsonl", priority=priority)  # type: ignore[arg-type]
    listed = [job.file for job in book.store.listed()]
    claimed = []
    while (job := book.claim()) is not None:
        claimed.append(job.file)
        book.trained(job, stats(1))
    assert claimed == ["3.jsonl", "5.jsonl", "2.jsonl", "4.jsonl", "1.jsonl"]
    assert claimed == listed, "queue list shows the order of training"


def test_a_taken_name_gets_a_number_and_keeps_its_file_name(home: Home, book: Book) -> None:
    jobs = []
    for number in range(4):
        path = put(home, "same.jsonl", f'{{"text": "{number}"}}\n')
        (answer,) = accept_all(book, [accept_message(path)])
        assert isinstance(answer, Accepted)
        jobs.append(get(book, answer.id))
    assert [job.name for job in jobs] == ["same.jsonl", "same.jsonl~2", "same.jsonl~3", "same.jsonl~4"]
    assert {job.file for job in jobs} == {"same.jsonl"}
    first = claim(book)
    book.trained(first, stats(1))
    second = claim(book)
    assert (first.name, second.name) == ("same.jsonl", "same.jsonl~2"), "free again in processing/, then taken"
    assert_agree(book)


def test_a_name_taken_by_hand_is_not_overwritten(home: Home, book: Book) -> None:
    put(home, "x.jsonl", "by hand", home.processing)
    job = accept(book, "x.jsonl")
    assert claim(book).name == "x.jsonl~2"
    assert (home.processing / "x.jsonl").read_text() == "by hand"
    assert get(book, job.id).file == "x.jsonl"


@pytest.mark.parametrize("name", ["n" * 240 + ".jsonl", "\N{SNOWMAN}" * 80 + ".jsonl", "e" * 251])
def test_a_long_name_is_cut_and_the_full_one_kept(home: Home, book: Book, name: str) -> None:
    path = put(home, name, ROW)
    (answer,) = accept_all(book, [accept_message(path)])
    assert isinstance(answer, Accepted)
    job = get(book, answer.id)
    assert job.file == name
    assert len(job.name.encode()) <= LONGEST
    assert job.name == fitting(name)
    assert job.name.endswith(".jsonl") == name.endswith(".jsonl")
    book.park(claim(book), "no good")
    assert_agree(book)


def test_a_name_that_is_not_utf_8_becomes_text(home: Home, book: Book) -> None:
    path = put(home, "na\udcffme.jsonl", ROW)
    (answer,) = accept_all(book, [accept_message(path)])
    assert isinstance(answer, Accepted)
    assert answer.file == "na\\xffme.jsonl"
    assert (home.line("normal") / "na\\xffme.jsonl").exists()
    reopen(book)


class CountingDisk(Disk):
    """Counts what waits for the platter."""

    def __init__(self) -> None:
        self.waits: list[str] = []

    def commit(self, connection: sqlite3.Connection) -> None:
        self.waits.append("commit")
        super().commit(connection)

    def sync_folder(self, path: Path) -> None:
        self.waits.append(path.name)
        super().sync_folder(path)


def test_a_hundred_files_are_accepted_and_committed_with_the_waits_of_one(home: Home) -> None:
    disk = CountingDisk()
    book = first_book(home, disk)
    paths = [put(home, f"{number}.jsonl", f'{{"text": "{number}"}}\n') for number in range(100)]
    disk.waits.clear()
    accept_all(book, [accept_message(path) for path in paths])
    assert disk.waits == ["commit", "normal", "inbox"], "the row first, then the new name, then the old one"
    jobs = [(book.trained(claim(book), stats(1)), stats(1)) for _ in paths]
    disk.waits.clear()
    book.committed(jobs, {})
    assert disk.waits == ["commit", "done", "processing"]


def test_a_file_that_is_not_as_it_was_read_is_not_taken(home: Home, book: Book) -> None:
    good, grown, gone = (put(home, name, ROW) for name in ("good.jsonl", "grown.jsonl", "gone.jsonl"))
    messages = [accept_message(path) for path in (good, grown, gone)]
    grown.write_text(ROW * 2)
    gone.unlink()
    answers = accept_all(book, messages)
    assert [type(answer) for answer in answers] == [Accepted, NotAsRead, NotAsRead]
    assert grown.exists()
    assert book.store.counts().normal == 1


def test_the_same_submit_id_twice_is_one_job(home: Home, book: Book) -> None:
    one = "01arz3ndektsv4rrffq69g5fav"
    paths = [put(home, f"{number}.jsonl", ROW + str(number)) for number in range(3)]
    messages = [accept_message(path, submit_id=one) for path in paths]
    first, double = accept_all(book, messages[:2])
    (late,) = accept_all(book, messages[2:])
    assert isinstance(first, Accepted)
    assert isinstance(double, Accepted)
    assert isinstance(late, Accepted)
    assert (first.id, first.duplicate) == (one, False)
    assert (double.id, double.duplicate, late.duplicate) == (one, True, True)
    assert list(home.inbox.iterdir()) == []
    assert book.store.counts().waiting == 1


def test_a_submit_id_of_a_job_that_is_over_is_known(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl", submit_id="01arz3ndektsv4rrffq69g5fav")
    book.end(job, "cancelled by request")
    path = put(home, "again.jsonl", ROW)
    (answer,) = accept_all(book, [accept_message(path, submit_id=job.id)])
    assert isinstance(answer, Accepted)
    assert answer.duplicate
    assert book.store.counts().waiting == 0
    assert not path.exists()


def test_a_refused_file_lies_in_failed_with_its_report(home: Home, book: Book) -> None:
    path = put(home, "bad.jsonl", "{\n")
    lines = (BadLine(1, "not JSON"), BadLine(7, "no text"))
    answer = Intake(book).refuse(Refuse(str(path), "bad.jsonl", "normal", "0" * 64, 2, "2 bad lines", lines))
    assert isinstance(answer, Accepted)
    assert answer.state == "failed"
    report = json.loads((home.failed / "bad.jsonl.error.json").read_text())
    assert list(report) == ["id", "file", "reason", "attempts", "lines", "traceback"]
    assert report["id"] == answer.id
    assert report["lines"] == [1, 7]
    assert report["attempts"] == 0
    assert "not JSON" in report["reason"]
    (entry,) = book.store.history(10, "failed")
    assert entry.file == "bad.jsonl"
    assert_agree(book)


def test_a_file_that_fails_three_times_goes_to_low_twice_and_then_to_failed(home: Home, book: Book) -> None:
    bad = accept(book, "bad.jsonl", priority="high")
    for number in range(2):
        other = accept(book, f"other{number}.jsonl", priority="low")
        job = claim(book)
        assert job.id == bad.id
        book.failed(job, attempts.reported(job.tally, 3), "ValueError: no", "Traceback: no")
        assert (home.line("low") / "bad.jsonl").exists()
        assert not list(home.failed.iterdir())
        good = claim(book)
        assert good.id == other.id, "the next file trains"
        book.trained(good, stats(1))
    job = claim(book)
    book.failed(job, attempts.reported(job.tally, 3), "ValueError: no", "Traceback: no")
    final = get(book, bad.id)
    assert (final.state, final.tally.attempts, final.last_error) == ("failed", 3, "ValueError: no")
    report = json.loads((home.failed / "bad.jsonl.error.json").read_text())
    assert (report["attempts"], report["traceback"]) == (3, "Traceback: no")
    assert [entry.outcome for entry in book.store.history(10)] == ["failed"]
    assert_agree(book)


def test_a_parked_file_says_what_the_weights_hold_of_it(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    held = claim(book)
    book.progress({job.id: 6})  # in the third of its epochs
    book.park(get(book, held.id), "no good")
    assert "2 of its samples" in json.loads((home.failed / "a.jsonl.error.json").read_text())["reason"]


def test_a_report_never_takes_the_name_of_a_payload(home: Home, book: Book) -> None:
    first = accept(book, "a.jsonl.error.json")
    second = accept(book, "a.jsonl")
    book.park(first, "one")
    book.park(second, "two")
    names = {path.name for path in home.failed.iterdir()}
    assert names == {"a.jsonl.error.json~2", "a.jsonl.error.json~2.error.json", "a.jsonl", "a.jsonl.error.json"}
    assert_agree(book)


def test_a_retry_forgives_and_removes_the_report(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.park(claim(book), "no good")
    after = book.retry(get(book, job.id))
    assert (after.state, after.tally.attempts, after.priority) == ("queued", 0, "normal")
    assert list(home.failed.iterdir()) == []
    assert claim(book).id == job.id


def test_a_retried_file_that_never_passed_validation_goes_through_the_inbox(home: Home, book: Book) -> None:
    path = put(home, "bad.jsonl", "{\n")
    refused = Intake(book).refuse(Refuse(str(path), "bad.jsonl", "high", "0" * 64, 2, "bad", ()))
    assert isinstance(refused, Accepted)
    after = book.retry(get(book, refused.id))
    assert after.state == "checking"
    (waiting,) = home.inbox.iterdir()
    assert waiting.name == f"@{refused.id}-high@bad.jsonl"
    (answer,) = accept_all(book, [accept_message(waiting, file="bad.jsonl", priority="high", submit_id=refused.id)])
    assert isinstance(answer, Accepted)
    assert (answer.id, answer.state, answer.duplicate) == (refused.id, "queued", False)
    assert claim(book).id == refused.id


def test_a_cancelled_job_leaves_only_history(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.end(job, "cancelled by request")
    assert book.store.get(job.id) is None
    assert [entry.outcome for entry in book.store.history(10)] == ["cancelled"]
    assert_agree(book)
    assert not list(home.line("normal").iterdir())


def test_an_interrupted_job_is_handed_out_first_whatever_came_meanwhile(book: Book) -> None:
    accept(book, "a.jsonl", priority="low")
    held = claim(book)
    accept(book, "b.jsonl", priority="high")
    book.rest(held, stats(1))
    again = claim(book)
    assert again.id == held.id
    assert again.interruptions == 1


def test_a_skipped_job_waits_at_the_end_of_low(home: Home, book: Book) -> None:
    first = accept(book, "a.jsonl")
    accept(book, "b.jsonl")
    accept(book, "c.jsonl", priority="low")
    book.back_to_low(claim(book), "skipped")
    assert (home.line("low") / "a.jsonl").exists()
    assert [job.file for job in book.store.listed()] == ["b.jsonl", "c.jsonl", "a.jsonl"]
    assert get(book, first.id).tally.attempts == 0


def test_a_file_deleted_by_hand_is_cancelled_at_its_claim(home: Home, book: Book) -> None:
    gone = accept(book, "a.jsonl")
    accept(book, "b.jsonl")
    (home.line("normal") / "a.jsonl").unlink()
    assert claim(book).file == "b.jsonl"
    last = book.store.last_end(gone.id)
    assert last is not None
    assert last.outcome == "cancelled"


def test_a_file_changed_while_it_waits_is_validated_again_as_the_same_job(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    (home.line("normal") / "a.jsonl").write_text(ROW * 5)
    assert book.claim() is None
    (waiting,) = home.inbox.iterdir()
    assert get(book, job.id).state == "checking"
    (answer,) = accept_all(book, [accept_message(waiting, file="a.jsonl", submit_id=job.id)])
    assert isinstance(answer, Accepted)
    held = claim(book)
    assert (held.id, held.samples, held.file) == (job.id, 5, "a.jsonl")


def test_a_file_changed_after_it_had_begun_is_a_new_job(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.back_to_line(claim(book), stats(1))
    (home.line("normal") / "a.jsonl").write_text(ROW * 5)
    assert book.claim() is None
    assert book.store.get(job.id) is None
    last = book.store.last_end(job.id)
    assert last is not None
    assert (last.outcome, last.samples) == ("cancelled", 1)
    (new,) = book.store.in_state("checking")
    assert new.id != job.id
    assert new.tally.progress == 0


def test_a_file_that_was_only_touched_is_the_same(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    (home.line("normal") / "a.jsonl").touch()
    assert claim(book).id == job.id


def test_a_file_changed_in_processing_fails_its_job(home: Home, book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.rest(claim(book))
    (home.processing / "a.jsonl").write_text("something else\n")
    assert book.claim() is None
    after = get(book, job.id)
    assert after.state == "failed"
    assert "processing/" in (after.last_error or "")
    assert_agree(book)
