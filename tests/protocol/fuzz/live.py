"""Target: a server in this process, on a real socket. It ends no other connection, whatever one sends to it."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["protocol"]):
    import protocol.server
    import protocol.turns
    from protocol.answers import KEPT
    from protocol.framing import HEADER, Encoding, encode
    from protocol.limits import Limits
    from protocol.server import Traffic, serve
import anyio

from tests.protocol.desk import Desk
from tests.protocol.fuzz.measure import Measure
from tests.protocol.fuzz.seeds import ENCODINGS
from tests.protocol.house import hello, request

LOOKS = 20
"""So often an answer is looked for, with a turn of the loop between, until the client hangs up."""
STAYS = 0b1110000
"""Bits of an input's first byte: with one of them it is a message of a client that stays."""
RENEWED_AFTER = 200
CHECK_EVERY = 500
MOST_OPEN = 200
LONGEST = 512
"""Bytes of an input, as the fuzzer is told."""

measure = Measure("server", int(sys.argv[1]), most=None)  # most of what grows is the fuzzer's own
traffic = Traffic()
desk = Desk()
# A pause is there to leave time to others; here there is nobody.
protocol.server.PAUSE = protocol.turns.PAUSE = 0  # type: ignore[misc]


async def serving(path: Path, ready: asyncio.Event) -> None:
    limits = Limits(max_frame=4096, hello_within=1, frame_within=1, retry_within=0.05, in_flight=8, subscriptions=2)
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(serve, path, desk, limits=limits, traffic=traffic))
        ready.set()


class Standing:
    """A client that stays, and says one message after another: a connection for each would take most of the time."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._path = path
        self._encoding = encoding
        self._socket: socket.socket | None = None
        self._said = 0

    async def say(self, payload: bytes) -> None:
        """Say this as one message, whatever it is; a new connection where the server ended the last, or in time."""
        if self._socket is None or self._said == RENEWED_AFTER:
            if self._socket is not None:
                self._socket.close()
            self._socket = connected(self._path)
            self._socket.send(encode(hello(), self._encoding))
            self._said = 0
        self._said += 1
        line = payload.replace(b"\n", b"") + b"\n"
        try:
            self._socket.send(line if self._encoding == "json" else HEADER.pack(len(payload)) + payload)
            for _ in range(3):
                await asyncio.sleep(0)
            over = not self._socket.recv(1 << 16)
        except BlockingIOError:
            over = False
        except (BrokenPipeError, ConnectionResetError):
            over = True
        if over:
            self._socket.close()
            self._socket = None


async def pass_by(path: Path, data: bytes) -> None:
    """Be a client that says this, reads for a while, and leaves."""
    with connected(path) as client:
        encoding = ENCODINGS[data[0] & 1]
        said = encode(hello(), encoding) + data[1:] if data[0] & 2 else data[1:]
        cut = len(said) // 2 if data[0] & 4 else len(said)
        with suppress(BrokenPipeError, ConnectionResetError):
            client.send(said[:cut])
            await asyncio.sleep(0)
            client.send(said[cut:])
            client.shutdown(socket.SHUT_WR)
        for _ in range(LOOKS):
            await asyncio.sleep(0)
            with suppress(BlockingIOError, ConnectionResetError):
                if not client.recv(1 << 16):
                    return


async def fill(path: Path) -> None:
    """Have the server remember as many answers as it ever does: that memory is bounded, but full only after a while."""
    loop = asyncio.get_running_loop()
    with connected(path) as client:
        await loop.sock_sendall(client, encode(hello(), "json"))
        for number in range(KEPT):
            asked = request(f"fill{number}", {"type": "echo", "text": "x" * LONGEST}, "Desk")
            await loop.sock_sendall(client, encode(asked, "json"))
            await loop.sock_recv(client, 1 << 16)


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    client.connect(str(path))
    return client


async def check(path: Path, bystander: socket.socket) -> None:
    """Somebody else is answered, and those who left are forgotten."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        asked = request(f"b{measure.count}", {"type": "echo", "text": "x"}, "Desk")
        await loop.sock_sendall(bystander, encode(asked, "json"))
        answer = await loop.sock_recv(bystander, 1 << 16)
        assert b'"body":"x"' in answer, answer
        while traffic.open > MOST_OPEN:
            await asyncio.sleep(0.01)


def main() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    path = Path(tempfile.mkdtemp()) / "control.sock"
    ready = asyncio.Event()
    server = loop.create_task(serving(path, ready))
    loop.run_until_complete(ready.wait())
    bystander = socket.socket(socket.AF_UNIX)
    bystander.connect(str(path))
    bystander.setblocking(False)
    bystander.send(encode(hello(), "json"))
    assert b"welcome" in loop.run_until_complete(loop.sock_recv(bystander, 1 << 16))

    loop.run_until_complete(fill(path))
    standing = [Standing(path, encoding) for encoding in ENCODINGS]

    def one_input(data: bytes) -> None:
        measure.one_more()
        if len(data) > 1:
            said = standing[data[0] & 1].say(data[1:]) if data[0] & STAYS else pass_by(path, data)
            loop.run_until_complete(said)
        if not measure.count % CHECK_EVERY:
            loop.run_until_complete(check(path, bystander))
        assert not server.done(), server

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
