"""A guest that speaks the link by hand, to say what none of ours would."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from protocol.client import NAME
from protocol.framing import FrameDecoder, encode_frame
from protocol.join import join
from protocol.messages.common import Message
from supervisor import link_protocol as wire


class RawGuest:
    """The bare link of a guest."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._decoder = FrameDecoder(wire.MAX_FRAME)
        self._got: list[wire.ToChild] = []

    async def send_bytes(self, data: bytes) -> None:
        """Send it, or as much as the tree takes until it hangs up."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.link.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.link)
            except ConnectionError:
                return

    async def send(self, *frames: object) -> None:
        await self.send_bytes(b"".join(map(encode_frame, frames)))

    async def receive(self) -> wire.ToChild:
        """The next frame; EOFError when the tree has cut the link."""
        with anyio.fail_after(10):
            while not self._got:
                await anyio.wait_readable(self.link)
                try:
                    data = self.link.recv(1 << 20)
                except ConnectionError as error:
                    raise EOFError from error
                if not data:
                    raise EOFError
                self._got += map(wire.read_to_child, self._decoder.feed(data))
        return self._got.pop(0)

    async def cut(self) -> None:
        """Wait until the tree has cut the link."""
        try:
            while True:
                await self.receive()
        except EOFError:
            return


def call(number: int, to: str, message: Message, timeout: float = 5.0) -> wire.Call:
    return wire.Call(number, to, wire.kind_of(message), wire.body_of(message), timeout)


def cast(to: str, message: Message, sent: int | None = None) -> wire.Cast:
    return wire.Cast(to, wire.kind_of(message), wire.body_of(message), sent)


def raw(value: bytes) -> msgspec.Raw:
    return msgspec.Raw(value)


@asynccontextmanager
async def raw_guest(path: Path, *, ack: bool = True) -> AsyncIterator[RawGuest]:
    """Join, and start as every guest does."""
    guest = RawGuest(await join(path, "Guest", NAME, 5))
    with guest.link:
        assert isinstance(await guest.receive(), wire.Start)
        if ack:
            await guest.send(wire.Acked(64, "wait"))
        yield guest
