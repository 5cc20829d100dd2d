"""``python -m tests.system.dying HOME CONFIG GAP``: the embedded daemon, which is killed for certain in one gap.

GAP names two durable steps, between which kill -9 falls:

- ``before-head``: a checkpoint is whole, with its manifest; HEAD does not name it yet;
- ``unfinished``: HEAD names a checkpoint that holds a part of the job; SQLite has not heard of it;
- ``finished``: HEAD names the checkpoint that commits the job; SQLite has not heard of it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from actors.daemon import TRAINER, open_daemon
from protocol.home import Home
from protocol.records import LEDGER, Ledger, read_head, read_record
from protocol.settings import load
from supervisor.durable import Disk

WANTED: dict[str, Callable[[Ledger], bool]] = {
    "before-head": lambda ledger: False,  # the training process sees to it
    "unfinished": lambda ledger: any(cursor.consumed for cursor in ledger.cursors),
    "finished": lambda ledger: bool(ledger.committed),
}


class DyingDisk(Disk):
    """Kills its process instead of the first commit to SQLite at which HEAD's ledger is as wanted."""

    def __init__(self, home: Home, wanted: Callable[[Ledger], bool]) -> None:
        self._home = home
        self._wanted = wanted

    def commit(self, connection: sqlite3.Connection) -> None:
        head = read_head(self._home)
        name = head.checkpoint if head is not None else None
        if name is not None and self._wanted(read_record(self._home.checkpoints / name / LEDGER, Ledger)):
            os.kill(os.getpid(), signal.SIGKILL)
        super().commit(connection)


async def main(root: str, config: str, gap: str) -> None:
    trainer = "tests.system.trainers:DyingTrainer" if gap == "before-head" else TRAINER
    disk = DyingDisk(Home(Path(root)), WANTED[gap])
    async with open_daemon(Path(root), load(Path(config)).config, disk=disk, trainer=trainer):
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
