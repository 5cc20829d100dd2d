"""Run a life of jobs on a disk that ends the process at one durable step, recover, and look. Prints one JSON object.

``python -m tests.actors.queue.crashes SCENARIO``: at each durable step of the scenario in turn a forked child dies.
Its home is then recovered by a child that itself dies at each of its own steps in turn, until one recovery gets
through; after that everything must agree, and a further recovery must have nothing to say.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from actors.queue import attempts
from actors.queue.book import Book
from actors.queue.intake import Intake
from protocol.home import Home
from protocol.messages.common import BadLine
from protocol.messages.queue import Refuse
from supervisor.durable import Disk
from supervisor.testing.disks import CrashingDisk, CrashPoint
from tests.actors.queue.homes import (
    ROW,
    accept,
    accept_all,
    accept_message,
    assert_agree,
    claim,
    cursor,
    elsewhere,
    entry,
    first_book,
    get,
    in_memory,
    make_home,
    open_book,
    put,
    recover,
    stats,
    where,
    write_checkpoint,
)

CRASHED = 137


class AnyStep(CrashPoint):
    """The step of this number, whatever it is. Syncs of folders change nothing that a surviving kernel shows, and are
    not counted; that of a file is where a copy to another file system is whole and has no name yet.

    To die after a step is to die before the next one, so one of the two is enough.
    """

    def __init__(self, number: int) -> None:
        super().__init__("any", count=number)

    def hit(self, step: str, path: Path | None, *, after: bool) -> bool:
        if after or step == "sync_folder":
            return False
        self.count -= 1
        return self.count == 0


def accepting(book: Book) -> None:
    home = book.folders.home
    paths = [put(home, f"{number}.jsonl", ROW * (number + 1)) for number in range(3)]
    accept_all(book, [accept_message(path) for path in paths])


def committing(book: Book) -> None:
    first = accept(book, "first.jsonl")
    second = accept(book, "second.jsonl", priority="low")
    for _ in range(2):
        book.trained(claim(book), stats(2))
    write_checkpoint(book.folders.home, 1, (entry(first), entry(second)))
    book.committed([(get(book, job.id), stats(2)) for job in (first, second)], {})


def interrupting(book: Book) -> None:
    accept(book, "first.jsonl")
    held = book.leave_loading(claim(book), "another-boot")
    write_checkpoint(book.folders.home, 1, (), (cursor(held, 1),))
    book.committed([], {held.id: 1})
    book.rest(get(book, held.id), stats(1))
    book.back_to_low(claim(book), "skipped")
    book.back_to_line(claim(book), stats(1))
    book.move(get(book, held.id), "high")


def failing(book: Book) -> None:
    accept(book, "bad.jsonl")
    for _ in range(3):
        job = claim(book)
        book.failed(job, attempts.reported(job.tally, 3), "ValueError: no", "Traceback")
    (failed,) = book.store.in_state("failed")
    book.retry(failed)


def refusing(book: Book) -> None:
    path = put(book.folders.home, "bad.jsonl", "{\n")
    message = Refuse(str(path), "bad.jsonl", "normal", "0" * 64, 2, "bad", (BadLine(1, "no"),))
    Intake(book).refuse(message)
    (failed,) = book.store.in_state("failed")
    book.retry(failed)


def changing(book: Book) -> None:
    home = book.folders.home
    job = accept(book, "changed.jsonl")
    (home.line("normal") / "changed.jsonl").write_text(ROW * 5)
    assert book.claim() is None
    (waiting,) = home.inbox.iterdir()
    accept_all(book, [accept_message(waiting, file="changed.jsonl", submit_id=job.id)])
    book.back_to_line(claim(book))
    (home.line("normal") / "changed.jsonl").write_text(ROW * 6)
    assert book.claim() is None


def falling_back(book: Book) -> None:
    job = accept(book, "a.jsonl")
    book.trained(claim(book), stats(2))
    book.committed([(get(book, job.id), stats(2))], {})
    write_checkpoint(book.folders.home, 1, (), (cursor(job, 1),))
    recover(book)


def crossing(book: Book) -> None:
    """The inbox and ``processing/`` are on another file system: a move is a copy and a removal."""
    home = book.folders.home
    path = put(home, "a.jsonl", ROW)
    accept_all(book, [accept_message(path)])
    book.back_to_line(claim(book))
    put(home, "added.jsonl", ROW * 2, home.line("high"))
    recover(book)


def losing_sqlite(book: Book) -> None:
    home = book.folders.home
    for name in ("b.jsonl", "a.jsonl"):
        put(home, name, f'{{"text": "{name}"}}\n', home.line("normal"))
    put(home, "held.jsonl", ROW, home.processing)
    put(home, "bad.jsonl", ROW * 2, home.failed)
    recover(book)


SCENARIOS: dict[str, Callable[[Book], None]] = {
    "accepting": accepting,
    "committing": committing,
    "interrupting": interrupting,
    "failing": failing,
    "refusing": refusing,
    "changing": changing,
    "falling_back": falling_back,
    "losing_sqlite": losing_sqlite,
    "crossing": crossing,
}


def in_child(work: Callable[[], None]) -> int:
    """Run it in a forked process and return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except AssertionError:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def live(home: Home, scenario: str, disk: Disk) -> None:
    SCENARIOS[scenario](open_book(home, disk))


def check(home: Home, scenario: str, texts_before: set[str]) -> None:
    """After a recovery that got through: a second has nothing to do, and nothing is lost or doubled."""
    book = open_book(home)
    said = recover(book)
    assert said == [], f"a second recovery still did something: {said}"
    assert_agree(book)
    assert {text for text, paths in where(home).items() if len(paths) != 1} == set()
    assert texts_before <= set(where(home)), f"lost: {texts_before - set(where(home))}"
    outcomes = [(one.id, one.outcome) for one in book.store.history(100)]
    assert len([one for one in outcomes if one[1] == "trained"]) == len(
        {one for one in outcomes if one[1] == "trained"}
    )
    if scenario == "committing" and home.head.exists():
        assert book.store.counts().done == 2
        assert len(outcomes) == 2
    for job in book.store.listed():
        assert job.attempts <= 3
        report = home.failed / (get(book, job.id).name + ".error.json")
        assert (job.state == "failed") == report.exists()


def crash_everywhere(scenario: str) -> dict[str, int]:
    """Crash the scenario at each step, and each recovery of it at each step of its own; count them."""
    points = recoveries = 0
    code = CRASHED
    while code == CRASHED:
        points += 1
        with ExitStack() as stack:
            home = make_home(stack.enter_context(in_memory()))
            if scenario == "crossing":
                for apart in (home.inbox, home.processing):
                    stack.enter_context(elsewhere(apart))
            if scenario != "losing_sqlite":
                first_book(home).store.close()
            code = in_child(partial(live, home, scenario, CrashingDisk(AnyStep(points))))
            assert code in (0, CRASHED), f"{scenario} failed at step {points}"
            texts = {text for text, paths in where(home).items() if not Path(paths[0]).name.startswith(".")}
            again, step = CRASHED, 0
            while again == CRASHED:
                step += 1
                again = in_child(partial(recover_once, home, CrashingDisk(AnyStep(step if code else 10**9))))
                recoveries += 1
            assert again == 0, f"{scenario}: recovery failed after a crash at {points}, at its step {step}"
            assert in_child(partial(check, home, scenario, texts)) == 0, f"{scenario}, crashed at step {points}"
    return {"points": points - 1, "recoveries": recoveries}


def recover_once(home: Home, disk: Disk) -> None:
    recover(open_book(home, disk))


if __name__ == "__main__":
    print(json.dumps(crash_everywhere(sys.argv[1])))
