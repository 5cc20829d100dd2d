"""The whole daemon inside another asyncio app: feed it a file, watch it learn, leave; your own work goes on meanwhile.

Run: python docs/examples/embed_daemon.py HOME FILE.jsonl
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from actors.daemon import open_daemon
from protocol.cli.inbox_copy import put
from protocol.config import Config, DiskSection, HttpSection
from protocol.ids import new_ids
from protocol.messages.queue import HistoryEntry, WaitAccepted, WaitFinished
from supervisor import EventStream


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Your app's own work."""
    writer.write(b"hello\n")
    writer.close()
    await writer.wait_closed()


async def show_steps(stream: EventStream) -> None:
    """Print the loss of each optimizer step. Who reads too slowly loses the oldest and delays nobody."""
    with stream.subscribe(["steps"]) as steps:
        async for event in steps:
            if event.data["loss"] is not None:
                print("step {step} of {steps_total}: loss {loss:.3f}".format_map(event.data), flush=True)


async def main(home: Path, file: Path) -> HistoryEntry:
    config = Config(disk=DiskSection(refuse_below=1 << 30, warn_below=2 << 30), http=HttpSection(port=-1))
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    print(f"my own server: port {server.sockets[0].getsockname()[1]}", flush=True)
    async with server, open_daemon(home, config) as daemon:
        steps = asyncio.create_task(show_steps(daemon.tree.stream))
        id = next(new_ids())  # the same id twice is one job
        await asyncio.to_thread(put, file, daemon.home.inbox, id, "normal")
        queue = daemon.tree.ref("QueueManager")
        await queue.call(WaitAccepted(id), timeout=60)
        entry = await queue.call(WaitFinished(id), timeout=600)
        steps.cancel()
    return entry


if __name__ == "__main__":
    entry = asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
    print(f"{entry.file}: {entry.outcome}, {entry.samples} samples, loss {entry.first_loss} -> {entry.last_loss}")
