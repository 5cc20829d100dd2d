"""The async client's connection: any number of exchanges at once over one socket."""

from __future__ import annotations

import socket
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread

from protocol.backend import Backend, Waiter, current_backend
from protocol.deadlines import Deadlines
from protocol.dialogue import Dialogue, failure, late, lost, welcomed
from protocol.quick import GRACE, Failed, open_socket
from protocol.wire import CLOSING, ErrorFrame, ReplyFrame, ServerFrame, WelcomeFrame
from protocol.writer import Writer

HIGH_WATER = 1 << 16
"""Bytes that are kept for the end of the turn, at most."""


class Exchange:
    """A request whose answer somebody waits for."""

    __slots__ = ("_backend", "deadline", "done", "frame", "waiter")

    def __init__(self, deadline: float, backend: Backend) -> None:
        self.deadline = deadline
        self.done = False
        self.frame: ServerFrame | None = None
        """The answer; none if it is done and there will be none."""
        self.waiter = backend.waiter()
        self._backend = backend

    def finish(self, frame: ServerFrame | None) -> None:
        """Let the task that waits go on, with the answer or without one."""
        if not self.done:
            self.done = True
            self.frame = frame
            self._backend.wake(self.waiter)

    def expire(self) -> None:
        """There was no answer in time."""
        self.finish(None)


class AsyncConnection:
    """A socket after its hello.

    It reads while anybody waits for anything, and not otherwise: so nothing piles up here that nobody wants, and a slow
    reader of events is seen as one by the server. The first thing that is said in a turn of the event loop is written
    at once, all that follow in one write at its end.
    """

    welcome: WelcomeFrame

    def __init__(self, sock: socket.socket) -> None:
        self.dialogue = Dialogue()
        self._socket = sock
        self._backend = current_backend()
        self._receiver = self._backend.receiver(sock, self._receive)
        self._writer = Writer(sock, self._backend, self._take, GRACE, self._on_broken)
        self._deadlines = Deadlines(time.monotonic, self._backend.call_later)
        self.broken = False
        """Whether nothing more can be said or heard on it."""
        self._failure = lost()
        """Why it is broken, once it is."""
        self._closed = False
        self._exchanges: dict[str, Exchange] = {}
        self._stream: deque[ServerFrame] = deque()
        """Frames that answer no request: the welcome, events."""
        self._listener: Waiter | None = None
        """Of the one task that waits for such a frame."""
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0

    @classmethod
    async def open(cls, path: Path, name: str, timeout: float) -> AsyncConnection:
        """Connect and exchange hellos, within ``timeout`` seconds.

        Raises:
            NoDaemon: nothing listens there.
            Failed: the server refused us or was silent.
        """
        sock = socket.socket(fileno=(await anyio.to_thread.run_sync(open_socket, path, timeout)).detach())
        sock.setblocking(False)
        connection = cls(sock)
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection._say(connection.dialogue.hello(name))
            welcome: ServerFrame | None = None
            with anyio.move_on_after(timeout):
                welcome = await connection.next()
            if welcome is None:
                raise late()
            connection.welcome = welcomed(welcome)
            undo.pop_all()
        return connection

    async def exchange(self, id: str, data: bytes, deadline: float) -> ServerFrame:
        """Send a request and return the frame that answers it. ``deadline`` is one of ``time.monotonic``.

        Raises:
            Failed: ``timed_out``, or why the connection broke.
        """
        if self.broken:
            self._raise_if_broken()
        exchange = self._exchanges[id] = Exchange(deadline, self._backend)
        self._deadlines.add(exchange)
        try:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
            if len(self._exchanges) == 1:  # nobody else waits for anything: what is said now goes alone
                self._writer.now()
                self._receiver.resume()
            else:
                self._writer.soon()
            if not exchange.done:
                await exchange.waiter
        finally:
            del self._exchanges[id]
            exchange.done = True  # if not, the task was cancelled
            if not self._exchanges:
                self._rest()
        if (frame := exchange.frame) is not None:
            exchange.frame = (
                None  # it is kept for its deadline, perhaps behind one that waits long; an answer may be large
            )
            return frame
        self._raise_if_broken()
        raise late()

    def cast(self, data: bytes) -> bool:
        """Send something that is not answered. Return whether to wait until it is :meth:`written`, to go no faster."""
        writer = self._writer
        if not self.broken:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
            if not writer.due:
                self._write_soon()
            elif self._unsent_bytes > HIGH_WATER:
                writer.now()
        if self.broken:
            self._raise_if_broken()
        return writer.blocked

    async def written(self) -> None:
        """Wait until everything is written."""
        await self._writer.empty()
        self._raise_if_broken()

    async def next(self) -> ServerFrame:
        """Return the next frame that answers no request. For one task at a time."""
        while not self._stream:
            self._raise_if_broken()
            self._listener = self._backend.waiter()
            self._receiver.resume()
            try:
                await self._listener
            finally:
                self._listener = None
                self._rest()
        return self._stream.popleft()

    def close(self) -> None:
        """End the connection; whoever waits is told. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self._break(lost())
            self._receiver.close()
            anyio.notify_closing(self._socket)
            self._socket.close()

    # ---------------------------------------------------------------- reading

    def _receive(self, data: bytes | OSError) -> None:
        if isinstance(data, OSError):
            self._break(lost(data))
        elif not data:
            self._break(lost())
        else:
            try:
                for frame in self.dialogue.feed(data):
                    # An answer that nobody waits for any more is dropped.
                    if type(frame) is not ReplyFrame:
                        self._arrive(frame)
                    elif (exchange := self._exchanges.get(frame.id)) is not None and not exchange.done:
                        exchange.done = True
                        exchange.frame = frame
                        self._backend.wake(exchange.waiter)
            except Failed as error:
                self._break(error)

    def _rest(self) -> None:
        """Read no further while nobody waits for anything."""
        if not self._exchanges and self._listener is None:
            self._receiver.pause()

    def _arrive(self, frame: ServerFrame) -> None:
        if not isinstance(frame, ErrorFrame):
            self._stream.append(frame)
            if self._listener is not None:
                self._backend.wake(self._listener)
        elif frame.id is not None:
            if (exchange := self._exchanges.get(frame.id)) is not None:
                exchange.finish(frame)
        elif frame.code in CLOSING:
            raise failure(frame)

    # ---------------------------------------------------------------- writing

    def _say(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._write_soon()

    def _write_soon(self) -> None:
        if self._exchanges:
            self._writer.soon()
        else:
            self._writer.first_now()

    def _take(self) -> bytes:
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0
        return data

    def _on_broken(self, error: OSError) -> None:
        if isinstance(error, TimeoutError):
            self._break(late())  # what is said next would be taken for the rest of this message
            self.close()
        elif not self._exchanges and self._listener is None:
            self._break(lost(error))
        # Otherwise: why the server hung up stands in what it sent before, and somebody is about to read it.

    # ---------------------------------------------------------------- the end

    def _break(self, error: Failed) -> None:
        if self.broken:
            return
        self.broken = True
        self._failure = error
        self._deadlines.close()
        for exchange in self._exchanges.values():
            exchange.finish(None)
        if self._listener is not None:
            self._backend.wake(self._listener)

    def _raise_if_broken(self) -> None:
        if self.broken:
            raise Failed(self._failure.code, self._failure.message, self._failure.detail)
