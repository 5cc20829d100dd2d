"""A home on disk for tests: real folders, real SQLite, and checkpoints as the trainer would write them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from actors.queue.book import Book
from actors.queue.folders import Folders
from actors.queue.intake import Intake, NotAsRead
from actors.queue.job import Job
from actors.queue.ledger import standing
from actors.queue.recovery import Recovery
from actors.queue.store import Store
from protocol.home import Home
from protocol.messages.common import Priority
from protocol.messages.queue import Accept, Accepted, JobStats
from protocol.records import (
    BaseModel,
    CheckpointManifest,
    Cursor,
    FileDigest,
    Head,
    Ledger,
    LedgerEntry,
    encode_record,
)
from supervisor.durable import Disk

BOOT = "this-boot"
ROW = '{"text": "coal"}\n'
START = datetime(2026, 1, 1, tzinfo=UTC)


class Ticking:
    """A clock that moves a second at each look, so that nothing happens at the same moment."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def make_home(root: Path) -> Home:
    home = Home(root / "home")
    for folder in home.folders:
        folder.mkdir(parents=True, exist_ok=True)
    return home


@contextmanager
def in_memory() -> Iterator[Path]:
    """Yield an empty folder, in memory where there is such a place: a sync costs nothing there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def elsewhere(folder: Path) -> Iterator[Path]:
    """Put a folder of a home, and what is in it, on another file system, by a symbolic link; yield where that is."""
    roots = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path.home())
    other = next(root for root in roots if root.is_dir() and root.stat().st_dev != folder.stat().st_dev)
    with tempfile.TemporaryDirectory(dir=other) as there:
        shutil.copytree(folder, there, dirs_exist_ok=True)
        shutil.rmtree(folder)
        folder.symlink_to(there)
        yield Path(there)


def open_book(home: Home, disk: Disk | None = None) -> Book:
    disk = disk or Disk()
    return Book(Store(home.database, disk), Folders(home, disk), Ticking())


def first_book(home: Home, disk: Disk | None = None) -> Book:
    """Open the book of a home in which a daemon has started before."""
    first = open_book(home)
    recover(first)
    first.store.close()
    return open_book(home, disk)


def recover(book: Book, boot: str = BOOT) -> list[str]:
    """Do what a new daemon does at its start; return what it says."""
    recovery = Recovery(book, book.folders.home, boot)
    recovery.at_start(standing(book.folders.home))
    return recovery.said


def reopen(book: Book, boot: str = BOOT) -> Book:
    """Let the daemon die and another one start, twice: the second start has nothing to do."""
    home = book.folders.home
    book.store.close()
    after = open_book(home)
    recover(after, boot)
    assert recover(after, boot) == [], "a second recovery is a no-op"
    assert_agree(after)
    return after


def put(home: Home, name: str, text: str, folder: Path | None = None) -> Path:
    path = (folder or home.inbox) / name
    path.write_text(text)
    return path


def accept_message(
    path: Path, *, file: str | None = None, priority: Priority = "normal", submit_id: str | None = None
) -> Accept:
    data = path.read_bytes()
    return Accept(
        path=str(path),
        file=file or path.name,
        priority=priority,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        samples=data.count(b"\n"),
        submit_id=submit_id,
    )


def accept(
    book: Book, name: str, text: str = ROW, *, priority: Priority = "normal", submit_id: str | None = None
) -> Job:
    """Drop a file and have it accepted; each file's content is its own."""
    home = book.folders.home
    path = put(home, name, text + f'{{"text": "{name}"}}\n')
    (answer,) = Intake(book).accept([accept_message(path, priority=priority, submit_id=submit_id)])
    assert isinstance(answer, Accepted), answer
    return get(book, answer.id)


def accept_all(book: Book, messages: list[Accept]) -> list[Accepted | NotAsRead]:
    return Intake(book).accept(messages)


def claim(book: Book) -> Job:
    job = book.claim()
    assert job is not None
    return job


def get(book: Book, job: str) -> Job:
    found = book.store.get(job)
    assert found is not None, f"no row of {job}"
    return found


def stats(samples: int) -> JobStats:
    return JobStats(samples=samples, rows=samples, tokens=10 * samples, steps=samples, first_loss=2.0, last_loss=1.0)


def entry(job: Job, samples: int = 2) -> LedgerEntry:
    return LedgerEntry(job.id, job.file, job.sha256, 1, samples, stats(samples), samples)


def cursor(job: Job, position: int) -> Cursor:
    return Cursor(job.id, job.file, job.sha256, 0, position, 1, 10, 0, stats(position), {})


def write_checkpoint(
    home: Home,
    step: int,
    committed: tuple[LedgerEntry, ...] = (),
    cursors: tuple[Cursor, ...] = (),
    *,
    head: bool = True,
) -> str:
    """Write a checkpoint that holds no weights but is whole otherwise, and let HEAD name it."""
    name = f"step-{step:08d}-0000000a"
    folder = home.checkpoints / name
    folder.mkdir()
    ledger = encode_record(Ledger(committed, cursors))
    (folder / "ledger.json").write_bytes(ledger)
    manifest = CheckpointManifest(
        name=name,
        lineage="line",
        parent=None,
        step=step,
        tokens=0,
        base=BaseModel("tiny", "0" * 64, "full"),
        files={"ledger.json": FileDigest(len(ledger), hashlib.sha256(ledger).hexdigest())},
        created_at=START,
        identity={},
    )
    (folder / "manifest.json").write_bytes(encode_record(manifest))
    if head:
        write_head(home, name)
    return name


def write_head(home: Home, checkpoint: str | None) -> None:
    temporary = home.root / "HEAD.new"
    temporary.write_bytes(encode_record(Head("line", checkpoint, None, START)))
    temporary.rename(home.head)


def payloads(home: Home) -> Iterator[Path]:
    """Every payload in the home, wherever it is. What is hidden in the inbox is nobody's yet."""
    for folder in (home.inbox, home.queue):
        for parent, _, names in os.walk(folder, followlinks=True):
            for name in names:
                if not name.endswith(".error.json") and not (folder == home.inbox and name.startswith(".")):
                    yield Path(parent) / name


def where(home: Home) -> dict[str, list[str]]:
    """Return, by content, where payloads lie, as paths relative to the home."""
    found: dict[str, list[str]] = {}
    for path in payloads(home):
        found.setdefault(path.read_text(), []).append(str(path.relative_to(home.root)))
    return found


def assert_agree(book: Book) -> None:
    """Rows and folders agree: each row finds its payload, each payload below ``queue/`` has one row."""
    home = book.folders.home
    named = set()
    for place in ("high", "normal", "low", "processing", "failed", "done"):
        for name in book.store.names(place):  # type: ignore[arg-type]
            named.add(home.queue / place / name)
    found = {path for path in payloads(home) if path.is_relative_to(home.queue)}
    lost = {path for path in named - found if path.parent != home.failed}
    assert not lost, f"rows without a payload: {lost}"
    assert not found - named, f"payloads without a row: {found - named}"
    for text, paths in where(home).items():
        assert len(paths) == 1, f"{text!r} is there {len(paths)} times: {paths}"
    counted = book.store.counts()
    states = [job.state for job in book.store.listed()]
    assert counted.failed == states.count("failed")
    assert counted.waiting == states.count("queued")
    assert counted.processing == states.count("processing")


def finish(book: Book, job: Job, samples: int = 2) -> Job:
    """Train a claimed job up to its commit, as SQLite is told of it."""
    book.trained(job, stats(samples))
    book.committed([(get(book, job.id), stats(samples))], {})
    return get(book, job.id)
