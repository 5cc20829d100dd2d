"""Reading from a socket that stays open long: on asyncio it is watched once, not anew for each read.

``anyio.wait_readable`` adds the socket to the loop's selector and takes it out again around every wait, which costs
more than reading and understanding a message of ordinary size.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

import anyio

CHUNK = 1 << 16
"""Bytes that are read at once, at most."""


class Receiver(Protocol):
    """The only reader of one non-blocking socket."""

    async def receive(self) -> bytes:
        """Return what has come, waiting for it; nothing at the end of the stream. One task at a time.

        A cancellation loses nothing.

        Raises:
            anyio.ClosedResourceError: :meth:`close` was called.
            OSError: as ``recv`` does.
        """

    def close(self) -> None:
        """Stop watching; call it before the socket is closed. Whoever waits is told. Closing twice is harmless."""


class AnyioReceiver:
    """Waits for each read by itself; on trio nothing else is quicker."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._closed = False

    async def receive(self) -> bytes:
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            await anyio.wait_readable(self._socket)
            try:
                return self._socket.recv(CHUNK)
            except BlockingIOError:
                continue

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)


class AsyncioReceiver:
    """Reads in the loop's own callback, one chunk ahead of whoever takes; then the kernel holds what comes."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = sock
        self._loop = loop
        self._watching = False
        self._held: bytes | OSError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    async def receive(self) -> bytes:
        while self._held is None:
            if self._closed:
                raise anyio.ClosedResourceError
            if not self._watching:
                self._watching = True
                self._loop.add_reader(self._socket, self._on_readable)
            self._waiter = self._loop.create_future()
            await self._waiter
        held = self._held
        if isinstance(held, OSError):
            raise held
        if held:  # the end of the stream, and its error, are told to everybody who asks
            self._held = None
        return held

    def close(self) -> None:
        self._closed = True
        self._unwatch()
        self._wake()

    def _on_readable(self) -> None:
        if self._held is not None:
            self._unwatch()
            return
        try:
            self._held = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._held = error
        self._wake()

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._socket)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
