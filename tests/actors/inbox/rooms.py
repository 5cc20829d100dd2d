"""A real tree of InboxWatcher and a partner, who takes files away as QueueManager does, and notes it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from actors.board import Board
from actors.inbox.watcher import InboxWatcher
from actors.settings_store import ConfigStore
from protocol.config import Config, DataSection, InboxSection
from protocol.home import Home
from protocol.messages.inbox import Rescan
from protocol.messages.queue import Accept, Accepted, QuietReport, Refuse
from supervisor import Actor, ChildSpec, Disk, Refused, SupervisorSpec, Tree, on, open_tree

ROW = b'{"text": "one"}\n'
ID = "01jdh2x9a7k3c5e8f0g1h2j3k4"


@dataclass
class Ledger:
    """What the partner was told."""

    accepted: list[Accept] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    quiet: dict[int, bool] = field(default_factory=dict)
    answer_with: Exception | None = None
    asked: int = 0

    @property
    def files(self) -> list[str]:
        return [message.file for message in self.accepted]


class Clerk(Actor):
    """Moves files out of the inbox and notes what it was told."""

    def __init__(self, ledger: Ledger, shelf: Path) -> None:
        self.ledger = ledger
        self.shelf = shelf

    def take(self, path: str) -> Accepted:
        self.ledger.asked += 1
        if self.ledger.answer_with is not None:
            raise self.ledger.answer_with
        if not Path(path).is_file() or Path(path).is_symlink():
            raise Refused("no regular file", "not_as_read")
        os.rename(path, self.shelf / f"{self.ledger.asked:04d}")
        return Accepted(id=str(self.ledger.asked), file=path, state="queued")

    @on(Accept)
    async def _(self, message: Accept) -> Accepted:
        answer = self.take(message.path)
        self.ledger.accepted.append(message)
        return answer

    @on(Refuse)
    async def _(self, message: Refuse) -> Accepted:
        self.ledger.refused.append(message)
        return self.take(message.path)

    @on(QuietReport)
    async def _(self, message: QuietReport) -> None:
        self.ledger.quiet[message.request] = message.quiet


@dataclass
class Room:
    tree: Tree
    home: Home
    store: ConfigStore
    board: Board
    ledger: Ledger

    def drop(self, name: str, content: bytes = ROW) -> Path:
        """Put a file into the inbox as a careful producer does."""
        path = self.home.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{os.fsencode(path.name).hex()}.tmp")
        hidden.write_bytes(content)
        hidden.rename(path)
        return path

    async def rescan(self) -> None:
        await self.tree.ref("InboxWatcher").call(Rescan(), timeout=10)


@asynccontextmanager
async def room(
    folder: Path, *, settle: float = 0.0, rescan: float = 60.0, on_bad_line: str = "refuse"
) -> AsyncIterator[Room]:
    home = Home(folder / "home")
    home.inbox.mkdir(parents=True, exist_ok=True)
    shelf = folder / "shelf"
    shelf.mkdir(exist_ok=True)
    config = Config(
        inbox=InboxSection(settle=settle, rescan=rescan),
        data=msgspec.convert({"on_bad_line": on_bad_line}, DataSection),
    )
    store, board, ledger = ConfigStore(config), Board(), Ledger()
    spec = SupervisorSpec(
        "root",
        [
            ChildSpec("QueueManager", lambda: Clerk(ledger, shelf)),
            ChildSpec("InboxWatcher", lambda: InboxWatcher(home, store, Disk(), board)),
        ],
    )
    async with open_tree(spec) as tree:
        yield Room(tree, home, store, board, ledger)
