"""A guest that says one thing without end: ``python -m tests.supervisor.joining.flooding PATH SECONDS``."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import anyio

from protocol.client import NAME
from protocol.framing import encode_frame
from protocol.join import join
from supervisor import link_protocol as wire
from tests.supervisor.joining.raw import call, cast, raw
from tests.supervisor.process_actors import Add, Note


async def enter(path: Path) -> socket.socket:
    return await join(path, "Guest", NAME, 5)


def main() -> None:
    link = anyio.run(enter, Path(sys.argv[1]))
    link.setblocking(False)
    link.sendall(encode_frame(wire.Acked(64, "wait")))
    frames = [
        cast("Peer", Note(1)),
        cast("Nobody", Note(1)),
        wire.Cast("Peer", "no.module:Nothing", raw(b"\xc0")),
        call(1, "Nobody", Add(1, 1)),
        wire.Watch(1, "Peer"),
        wire.Unwatch(1),
        wire.Publish("noise", {"a": 1}),
        wire.Taken(7, "Note"),
    ]
    piece = b"".join(map(encode_frame, frames)) * 200
    print("floods", flush=True)
    end, rest = time.monotonic() + float(sys.argv[2]), b""
    while time.monotonic() < end:
        rest = rest or piece
        try:
            rest = rest[link.send(rest) :]
            link.recv(1 << 20)
        except BlockingIOError:
            continue


if __name__ == "__main__":
    main()
