"""The async client's connection: any number of exchanges at once over one socket."""

from __future__ import annotations

import socket
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from protocol.backend import Backend, Waiter, current_backend
from protocol.deadlines import Deadlines
from protocol.dialogue import Dialogue, failure, late, lost, welcomed
from protocol.quick import GRACE, Failed, open_socket
from protocol.wire import CLOSING, ErrorFrame, ReplyFrame, ServerFrame, WelcomeFrame

HIGH_WATER = 1 << 16
"""Bytes that wait to be written above which whoever casts has to wait, too."""


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

    One task reads for all, while anybody waits for anything; so nothing piles up here that nobody wants, and a slow
    reader of events is seen as one by the server. The first thing that is said in a turn of the event loop is written
    at once, all that follow in one write at its end.
    """

    welcome: WelcomeFrame

    def __init__(self, sock: socket.socket) -> None:
        self.dialogue = Dialogue()
        self._socket = sock
        self._backend = current_backend()
        self._receiver = self._backend.receiver(sock)
        self._deadlines = Deadlines(time.monotonic, self._backend.call_later)
        self._broken: Failed | None = None
        self._closed = False
        self._exchanges: dict[str, Exchange] = {}
        self._stream: deque[ServerFrame] = deque()
        """Frames that answer no request: the welcome, events."""
        self._listener: Waiter | None = None
        """Of the one task that waits for such a frame."""
        self._parked: Waiter | None = None
        """Of the reading task, while nobody waits for anything."""
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._flush_due = False
        self._draining = False
        self._crowd: list[Waiter] = []
        """Of the tasks that wait until there is room to write."""

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
            connection._backend.spawn(connection._read, "stokehold client")
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
        self._raise_if_broken()
        exchange = self._exchanges[id] = Exchange(deadline, self._backend)
        self._deadlines.add(exchange)
        try:
            self._say(data)
            self._unpark()
            if not exchange.done:
                await exchange.waiter
        finally:
            del self._exchanges[id]
            if not exchange.done:  # the task was cancelled
                exchange.done = True
            self._deadlines.settled()
        if exchange.frame is None:
            self._raise_if_broken()
            raise late()
        return exchange.frame

    async def cast(self, data: bytes) -> None:
        """Send something that is not answered, and wait while too much is unwritten."""
        self._raise_if_broken()
        self._say(data)
        self._raise_if_broken()
        if self._unsent_bytes > HIGH_WATER:
            self._flush()
            await self.written(HIGH_WATER)

    async def written(self, but: int = 0) -> None:
        """Wait until no more than so many bytes are unwritten."""
        while self._unsent_bytes > but and self._broken is None:
            waiter = self._backend.waiter()
            self._crowd.append(waiter)
            await waiter
        self._raise_if_broken()

    async def next(self) -> ServerFrame:
        """Return the next frame that answers no request. For one task at a time."""
        while not self._stream:
            self._raise_if_broken()
            self._listener = self._backend.waiter()
            self._unpark()
            try:
                await self._listener
            finally:
                self._listener = None
        return self._stream.popleft()

    @property
    def broken(self) -> bool:
        """Whether nothing more can be said or heard on it."""
        return self._broken is not None

    def close(self) -> None:
        """End the connection; whoever waits is told. Closing twice is harmless."""
        if self._broken is None:
            self._write()
        self._break(lost())
        if not self._closed:
            self._closed = True
            self._receiver.close()
            anyio.notify_closing(self._socket)
            self._socket.close()

    # ---------------------------------------------------------------- reading

    async def _read(self) -> None:
        """Read while anybody waits for anything, until the connection ends."""
        try:
            while self._broken is None:
                if not self._exchanges and self._listener is None:
                    self._parked = self._backend.waiter()
                    await self._parked
                    continue
                data = await self._receiver.receive()
                if not data:
                    raise lost()
                for frame in self.dialogue.feed(data):
                    self._arrive(frame)
        except anyio.ClosedResourceError:
            self._break(lost())
        except OSError as error:
            self._break(lost(error))
        except Failed as error:
            self._break(error)

    def _arrive(self, frame: ServerFrame) -> None:
        if not isinstance(frame, ReplyFrame | ErrorFrame):
            self._stream.append(frame)
            if self._listener is not None:
                self._backend.wake(self._listener)
        elif frame.id is not None:
            # An answer that nobody waits for any more is dropped.
            if (exchange := self._exchanges.get(frame.id)) is not None:
                exchange.finish(frame)
        elif frame.code in CLOSING:
            raise failure(frame)

    def _unpark(self) -> None:
        if self._parked is not None:
            parked, self._parked = self._parked, None
            self._backend.wake(parked)

    # ---------------------------------------------------------------- writing

    def _say(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if not self._flush_due:
            self._flush()
            self._flush_due = True
            self._backend.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what the socket takes; the rest is left to a task."""
        self._flush_due = False
        if self._broken is None and not self._draining:
            self._write()
            if self._unsent:
                self._draining = True
                self._backend.spawn(self._drain, "stokehold client, writing")

    def _write(self) -> None:
        if not self._unsent:
            return
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if not self._exchanges and self._listener is None:
                self._break(lost(error))
            sent = len(data)  # otherwise: why the server hung up stands in what it sent, and somebody is about to read
        self._unsent[:] = [data[sent:]] if sent < len(data) else []
        self._unsent_bytes = len(data) - sent
        if not self._unsent:
            self._let_in()

    async def _drain(self) -> None:
        """Wait until the socket takes more. A message of which only a part was written spoils all that follow."""
        if self._broken is not None:
            return
        with anyio.move_on_after(GRACE) as scope, suppress(anyio.ClosedResourceError, OSError):
            await anyio.wait_writable(self._socket)
        self._draining = False
        if scope.cancelled_caught:
            self._break(late())
            self.close()
        else:
            self._flush()

    def _let_in(self) -> None:
        for waiter in self._crowd:
            self._backend.wake(waiter)
        self._crowd.clear()

    # ---------------------------------------------------------------- the end

    def _break(self, error: Failed) -> None:
        if self._broken is not None:
            return
        self._broken = error
        self._deadlines.close()
        for exchange in self._exchanges.values():
            exchange.finish(None)
        if self._listener is not None:
            self._backend.wake(self._listener)
        self._let_in()
        self._unpark()

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise Failed(self._broken.code, self._broken.message, self._broken.detail)
