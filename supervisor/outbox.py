"""The bounded outgoing side of a link: nobody who sends ever waits for the peer's socket.

A frame is written at once if the socket takes it, from whichever thread; what it does not take waits here and is
written by :meth:`Outbox.drain`. Writing at once matters: what an actor said before it was killed has left already.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable

import anyio

from protocol.framing import encode_frame
from supervisor.link_protocol import MAX_FRAME, Frame

OVERFULL = 64 << 20
"""Bytes of frames that must not be lost, above which the peer has to be given up: it takes none of them."""


class FrameTooLarge(ValueError):
    """A message that does not fit one frame. Nothing was sent."""


class Outbox:
    """Frames on their way out of a non-blocking stream socket. All methods but :meth:`drain` may be called anywhere.

    Args:
        sock: the socket; owned by the caller.
        bound: how many bytes may wait. Frames that must not be lost (answers, reasons) are taken beyond it.
        overfull: called once, if so much waits that nothing more should be kept for this peer.
    """

    def __init__(self, sock: socket.socket, bound: int = 4 << 20, overfull: Callable[[], None] | None = None) -> None:
        self._socket = sock
        self._bound = bound
        self._overfull = overfull
        self._waiting: deque[memoryview] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._broken = False
        self._empty: anyio.Event | None = None

    @property
    def full(self) -> bool:
        """Whether a frame that may be refused would be."""
        return self._bytes >= self._bound

    def put(self, frame: Frame, *, must: bool = True) -> bool:
        """Send a frame, or have it wait. False: the outbox is full (never with ``must``) or the peer is gone.

        Raises:
            FrameTooLarge: the frame is larger than a frame may be.
            TypeError, ValueError: it holds something that msgpack cannot carry.
        """
        data = encode_frame(frame)
        if len(data) > MAX_FRAME:
            raise FrameTooLarge(f"{type(frame).__name__}: {len(data)} bytes; a frame may have {MAX_FRAME}")
        with self._lock:
            if self._broken or (self._bytes >= self._bound and not must):
                return False
            first = not self._waiting
            self._waiting.append(memoryview(data))
            self._bytes += len(data)
            if first:
                self._write()
                if self._waiting:
                    os.eventfd_write(self._wake, 1)
            overfull = self._overfull if self._bytes > OVERFULL else None
            if overfull is not None:
                self._overfull = None
        if overfull is not None:
            overfull()
        return not self._broken

    async def drain(self) -> None:
        """Write what waits, for ever. One task; cancel it to end it."""
        while True:
            await anyio.wait_readable(self._wake)
            os.eventfd_read(self._wake)
            while self._bytes and not self._broken:
                await anyio.wait_writable(self._socket)
                with self._lock:
                    self._write()
            if self._empty is not None:
                self._empty.set()

    async def flush(self, seconds: float) -> None:
        """Wait until nothing waits, or so long."""
        if self._bytes:
            self._empty = anyio.Event()
            with anyio.move_on_after(seconds):
                await self._empty.wait()

    def close(self) -> None:
        """Take nothing more. Call it when :meth:`drain` has ended."""
        with self._lock:
            self._broken = True
            os.close(self._wake)

    def _write(self) -> None:
        try:
            while self._waiting:
                data = self._waiting[0]
                sent = self._socket.send(data)
                self._bytes -= sent
                if sent < len(data):
                    self._waiting[0] = data[sent:]
                    return
                self._waiting.popleft()
        except BlockingIOError:
            return
        except OSError:  # the reader of this socket meets the same end, and acts on it
            self._broken = True
            self._waiting.clear()
            self._bytes = 0
