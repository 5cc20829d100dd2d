"""The async client, for programs on asyncio or trio: many calls at once over one connection.

    async with connect(home.socket) as client:
        jobs = await client.call("QueueManager", GetQueue())

It starts no task of its own: whichever caller waits reads for all of them, and hands over when its answer has come.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from protocol.client import CHUNK, NAME
from protocol.dialogue import Dialogue, Lagged, broken_connections_are_failures, event, failure, lost, outcome, welcomed
from protocol.messages.common import Message, Request, TailEvent
from protocol.quick import GRACE, Failed, NoDaemon, open_socket
from protocol.wire import CLOSING, Code, ErrorFrame, ReplyFrame, ServerFrame, WelcomeFrame

__all__ = ["AsyncClient", "Failed", "Lagged", "NoDaemon", "connect"]

R = TypeVar("R")


@asynccontextmanager
async def connect(path: str | Path, *, name: str = NAME, timeout: float = 5.0) -> AsyncIterator[AsyncClient]:
    """Exchange hellos with the daemon at this socket, within ``timeout`` seconds, and keep the connection open.

    Raises:
        NoDaemon: nothing listens there.
        Failed: it refused us (``not_allowed``, ``incompatible``, ``full``), or was silent (``timed_out``).
    """
    client = AsyncClient(Path(path), name, timeout, await _Connection.open(Path(path), name, timeout))
    try:
        yield client
    finally:
        client.close()


class AsyncClient:
    """One connection to a daemon, for any number of tasks at once. Made by :func:`connect`."""

    def __init__(self, path: Path, name: str, timeout: float, connection: _Connection) -> None:
        self._path = path
        self._name = name
        self._timeout = timeout
        self._connection = connection
        self._connecting = anyio.Lock()

    @property
    def server(self) -> WelcomeFrame:
        """What the server said of itself: version, name, pid, instance."""
        return self._connection.welcome

    async def call(self, to: str, message: Request[R], timeout: float = 5.0) -> R:
        """Send a request to an actor and return its reply; ``timeout`` in seconds bounds the answer.

        If the connection breaks while the server lives on, the same request is sent again once over a new one: the
        server answers it from memory if it was done already. A client whose connection broke earlier connects anew.

        Raises:
            Failed: with the code of ``gen_server:call``'s exits, or the actor's own refusal.
            NoDaemon: nothing listens any more, and nothing was sent.
        """
        with _within(timeout + GRACE):
            connection = await self._connected()
            id, data = connection.dialogue.request(to, message, timeout)
            try:
                return outcome(await connection.exchange(id, data), message)
            except Failed as error:
                if error.code != Code.CONNECTION_LOST:
                    raise
                connection.close()
                try:
                    again = await self._connected()
                except NoDaemon:
                    raise error from None
                if again.welcome.instance != connection.welcome.instance:
                    raise
            return outcome(await again.exchange(id, data), message)

    async def cast(self, to: str, message: Message) -> None:
        """Send a message to an actor without waiting for anything but room in the socket.

        Raises:
            Failed: the connection is broken; the next call or cast connects anew.
            NoDaemon: nothing listens any more, and nothing was sent.
        """
        connection = await self._connected()
        data = connection.dialogue.cast(to, message)
        try:
            await connection.send(data)
        except Failed:
            connection.close()
            raise

    @asynccontextmanager
    async def subscribe(self, topics: Sequence[str]) -> AsyncIterator[AsyncIterator[TailEvent | Lagged]]:
        """Receive the events of these topics from now on, over a connection of their own.

        Iteration ends when the daemon closes the connection.
        """
        connection = await _Connection.open(self._path, self._name, self._timeout)
        try:
            with _within(self._timeout):
                answer = await connection.exchange(*connection.dialogue.subscribe(topics))
            if not isinstance(answer, ReplyFrame):
                raise failure(answer)
            yield _Events(connection)
        finally:
            connection.close()

    def close(self) -> None:
        """End the connection. Closing twice is harmless."""
        self._connection.close()

    async def _connected(self) -> _Connection:
        if self._connection.broken:
            async with self._connecting:
                if self._connection.broken:
                    self._connection.close()
                    self._connection = await _Connection.open(self._path, self._name, self._timeout)
        return self._connection


class _Events:
    """Iteration over a subscription's connection."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[TailEvent | Lagged]:
        return self

    async def __anext__(self) -> TailEvent | Lagged:
        try:
            return event(await self._connection.next())
        except Failed as error:
            if error.code == Code.CONNECTION_LOST:
                raise StopAsyncIteration from error
            raise


class _Connection:
    """A socket after its hello. Any number of tasks may wait for answers; one of them at a time reads."""

    welcome: WelcomeFrame

    def __init__(self, sock: socket.socket) -> None:
        self.dialogue = Dialogue()
        self._socket = sock
        self._sending = anyio.Lock()
        self._reading = False
        self._broken: Failed | None = None
        self._wanted: set[str] = set()
        """Ids of the requests that somebody waits for; an answer that nobody wants any more is dropped."""
        self._arrived: dict[str, ServerFrame] = {}
        self._turns: dict[str, anyio.Event] = {}
        """Tasks that wait while another reads: woken when their answer has come, or to read on."""
        self._stream: deque[ServerFrame] = deque()
        """Frames that answer no request: the welcome, events."""

    @classmethod
    async def open(cls, path: Path, name: str, timeout: float) -> _Connection:
        """Connect and exchange hellos."""
        sock = socket.socket(fileno=(await anyio.to_thread.run_sync(open_socket, path, timeout)).detach())
        sock.setblocking(False)
        connection = cls(sock)
        with ExitStack() as undo:
            undo.callback(connection.close)
            with _within(timeout):
                await connection.send(connection.dialogue.hello(name))
                connection.welcome = welcomed(await connection.next())
            undo.pop_all()
        return connection

    async def exchange(self, id: str, data: bytes) -> ServerFrame:
        """Send a request and return the frame that answers it."""
        self._wanted.add(id)
        try:
            try:
                await self.send(data)
            except Failed as error:
                if error.code != Code.CONNECTION_LOST:
                    raise
                # Why the server hung up stands in what it sent before: read on.
            while id not in self._arrived:
                if self._reading:
                    turn = self._turns[id] = anyio.Event()
                    await turn.wait()
                else:
                    await self._read()
            return self._arrived[id]
        finally:
            self._wanted.discard(id)
            self._arrived.pop(id, None)
            self._turns.pop(id, None)
            self._hand_over()

    async def next(self) -> ServerFrame:
        """Return the next frame that answers no request. For one task at a time."""
        while not self._stream:
            await self._read()
        return self._stream.popleft()

    async def send(self, data: bytes) -> None:
        """Write it all: half a frame would spoil the stream for the other tasks, so cancellation waits for it."""
        async with self._sending:
            self._raise_if_broken()
            view = memoryview(data)
            with broken_connections_are_failures():
                try:
                    with anyio.fail_after(GRACE, shield=True):
                        while view:
                            try:
                                view = view[self._socket.send(view) :]
                            except BlockingIOError:
                                await anyio.wait_writable(self._socket)
                except TimeoutError:
                    self.close()  # what is said next would be taken for the rest of this message
                    raise

    @property
    def broken(self) -> bool:
        """Whether nothing more can be said or heard on it."""
        return self._broken is not None

    def close(self) -> None:
        """End the connection; whoever waits is told. Closing twice is harmless."""
        if self._broken is None:
            self._broken = lost()
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
        for turn in self._turns.values():
            turn.set()

    async def _read(self) -> None:
        """Take what has come, waiting for it, and give each frame to whom it is for."""
        self._raise_if_broken()
        self._reading = True
        try:
            with broken_connections_are_failures():
                await anyio.wait_readable(self._socket)
                data = self._socket.recv(CHUNK)
                if not data:
                    raise lost()
                frames = self.dialogue.feed(data)
        except anyio.ClosedResourceError as error:
            raise lost() from error
        except Failed as error:
            self._broken = error
            raise
        finally:
            self._reading = False
        for frame in frames:
            if isinstance(frame, ReplyFrame | ErrorFrame):
                self._arrive(frame)
            else:
                self._stream.append(frame)

    def _arrive(self, frame: ReplyFrame | ErrorFrame) -> None:
        if frame.id is None:
            if frame.code in CLOSING:
                self._broken = failure(frame)
        elif frame.id in self._wanted:
            self._arrived[frame.id] = frame
            if turn := self._turns.get(frame.id):
                turn.set()

    def _hand_over(self) -> None:
        """Let one of those who still wait read on."""
        if not self._reading:
            waiting = (turn for turn in self._turns.values() if not turn.is_set())
            if turn := next(waiting, None):
                turn.set()

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise Failed(self._broken.code, self._broken.message, self._broken.detail)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    with broken_connections_are_failures(), anyio.fail_after(seconds):
        yield
