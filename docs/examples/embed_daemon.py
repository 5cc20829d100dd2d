"""The whole daemon inside another asyncio app: feed it a file, watch the steps, use the model, leave.

Run: python docs/examples/embed_daemon.py HOME FILE.jsonl
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from actors.daemon import open_daemon
from protocol.config import Config, DiskSection, HttpSection
from protocol.messages.queue import HistoryEntry, WaitAccepted, WaitFinished

ID = "0000000000000000000example"


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Your app's own work, which goes on beside the daemon."""
    writer.write(b"hello\n")
    writer.close()
    await writer.wait_closed()


async def main(home: Path, file: Path) -> HistoryEntry:
    config = Config(disk=DiskSection(refuse_below=1 << 30, warn_below=2 << 30), http=HttpSection(port=-1))
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server, open_daemon(home, config) as daemon:
        aside = daemon.home.inbox / f".{file.name}.tmp"
        shutil.copyfile(file, aside)
        aside.rename(daemon.home.inbox / f"@{ID}-normal@{file.name}")
        queue = daemon.tree.ref("QueueManager")
        accepted = await queue.call(WaitAccepted(ID), timeout=60)
        return await queue.call(WaitFinished(accepted.id), timeout=600)


if __name__ == "__main__":
    entry = asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
    print(f"{entry.file}: {entry.outcome}, {entry.samples} samples, loss {entry.first_loss} -> {entry.last_loss}")
