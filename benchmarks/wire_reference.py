"""The least that a request over a Unix socket can cost: asyncio protocols that echo length-prefixed msgpack.

``python -m benchmarks.wire_reference PATH`` serves it. What is said is decoded and encoded at both ends, as by us.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

import msgspec

from protocol.framing import HEADER


class Said(msgspec.Struct):
    """An envelope: who asks, whether an answer is wanted, and what."""

    id: int
    answered: bool
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Said).decode


class Peer(asyncio.Protocol):
    """Cuts frames out of the stream; what is written within one turn of the loop goes out joined."""

    def __init__(self) -> None:
        self._buffer = b""
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        start, end = 0, len(buffer)
        while end - start >= 4:
            stop = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
            if stop > end:
                break
            self.said(_decode(buffer[start + 4 : stop]))
            start = stop
        self._buffer = buffer[start:]

    def say(self, said: Said) -> None:
        """Write it with what else is said in this turn of the loop."""
        data = _encode(said)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += (HEADER.pack(len(data)), data)

    def said(self, said: Said) -> None:
        """Take what the other side said."""

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def _flush(self) -> None:
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()


class Echo(Peer):
    """The server's side: answers what wants an answer."""

    def said(self, said: Said) -> None:
        if said.answered:
            self.say(said)


class Asker(Peer):
    """The client's side: answers come in the order of the questions."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: deque[asyncio.Future[Said]] = deque()

    def ask(self, body: bytes) -> asyncio.Future[Said]:
        """Ask, and return the future of the answer."""
        future: asyncio.Future[Said] = self._loop.create_future()
        self._asked.append(future)
        self.say(Said(1, True, body))
        return future

    def said(self, said: Said) -> None:
        self._asked.popleft().set_result(said)


async def main(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Echo, path)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
