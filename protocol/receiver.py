"""Reading from a socket that stays open long: it is watched once, not anew for each read, and what comes is handed on.

``anyio.wait_readable`` adds the socket to asyncio's selector and takes it out again around every wait, and a task that
waits has to be woken: each costs more than reading and understanding a message of ordinary size.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

CHUNK = 1 << 16
"""Bytes that are read at once, at most."""

Take = Callable[[bytes | OSError], None]
"""Called with each piece that has come: nothing at the end of the stream, an error in its place. It must not raise."""


def read_once(sock: socket.socket) -> bytes | OSError | None:
    """Return what is to be handed on now; None if nothing has come."""
    try:
        return sock.recv(CHUNK)
    except BlockingIOError:
        return None
    except OSError as error:
        return error


class Receiver(Protocol):
    """The only reader of one non-blocking socket. Idle until :meth:`resume`."""

    def resume(self) -> None:
        """Read, and hand on what comes, until :meth:`pause` or the end of the stream."""

    def pause(self) -> None:
        """Hand on nothing more; the kernel holds what comes."""

    def close(self) -> None:
        """Stop for good; call it before the socket is closed. Closing twice is harmless."""


class AsyncioReceiver:
    """A callback of the loop."""

    def __init__(self, sock: socket.socket, take: Take, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = sock
        self._take = take
        self._loop = loop
        self._watching = False
        self._paused = True
        self._over = False

    def resume(self) -> None:
        self._paused = False
        if not self._watching and not self._over:
            self._watching = True
            self._loop.add_reader(self._socket, self._on_readable)

    def pause(self) -> None:
        # The socket is watched until something comes: whoever asks one thing at a time would pause and resume for each.
        self._paused = True

    def close(self) -> None:
        self._over = True
        self._unwatch()

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._socket)

    def _on_readable(self) -> None:
        if self._paused:
            self._unwatch()
            return
        data = read_once(self._socket)
        if data is None:
            return
        if not data or isinstance(data, OSError):
            self.close()
        self._take(data)
