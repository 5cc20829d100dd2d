"""The async client, for programs on asyncio or trio: many calls at once over one connection.

    async with connect(home.socket) as client:
        jobs = await client.call("QueueManager", GetQueue())

It reads only while somebody waits for something.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio

from protocol.aconnection import AsyncConnection
from protocol.client import NAME
from protocol.dialogue import Lagged, broken_connections_are_failures, event, failure, outcome
from protocol.messages.common import Message, Request, TailEvent
from protocol.quick import GRACE, Failed, NoDaemon
from protocol.wire import Code, ReplyFrame, WelcomeFrame

__all__ = ["AsyncClient", "Failed", "Lagged", "NoDaemon", "connect"]

R = TypeVar("R")


@asynccontextmanager
async def connect(path: str | Path, *, name: str = NAME, timeout: float = 5.0) -> AsyncIterator[AsyncClient]:
    """Exchange hellos with the daemon at this socket, within ``timeout`` seconds, and keep the connection open.

    Raises:
        NoDaemon: nothing listens there.
        Failed: it refused us (``not_allowed``, ``incompatible``, ``full``), or was silent (``timed_out``).
    """
    client = AsyncClient(Path(path), name, timeout, await AsyncConnection.open(Path(path), name, timeout))
    try:
        yield client
        with suppress(Failed):  # whoever casts is told of nothing that becomes of it later
            await client.flush()
    finally:
        client.close()


class AsyncClient:
    """One connection to a daemon, for any number of tasks at once. Made by :func:`connect`."""

    def __init__(self, path: Path, name: str, timeout: float, connection: AsyncConnection) -> None:
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
        deadline = time.monotonic() + timeout + GRACE
        connection = self._connection
        if connection.broken:
            connection = await self._connected(deadline)
        id, data = connection.dialogue.request(to, message, timeout)
        try:
            return outcome(await connection.exchange(id, data, deadline), message)
        except Failed as error:
            if error.code != Code.CONNECTION_LOST:
                raise
            connection.close()
            try:
                again = await self._connected(deadline)
            except NoDaemon:
                raise error from None
            if again.welcome.instance != connection.welcome.instance:
                raise
        return outcome(await again.exchange(id, data, deadline), message)

    async def cast(self, to: str, message: Message) -> None:
        """Send a message to an actor without waiting for anything but room in the socket.

        Raises:
            Failed: the connection is broken; the next call or cast connects anew.
            NoDaemon: nothing listens any more, and nothing was sent.
        """
        connection = self._connection
        if connection.broken:
            connection = await self._connected(time.monotonic() + self._timeout)
        if connection.cast(connection.dialogue.cast(to, message)):
            await connection.written()

    @asynccontextmanager
    async def subscribe(self, topics: Sequence[str]) -> AsyncIterator[AsyncIterator[TailEvent | Lagged]]:
        """Receive the events of these topics from now on, over a connection of their own.

        Iteration ends when the daemon closes the connection.
        """
        connection = await AsyncConnection.open(self._path, self._name, self._timeout)
        try:
            id, data = connection.dialogue.subscribe(topics)
            answer = await connection.exchange(id, data, time.monotonic() + self._timeout)
            if not isinstance(answer, ReplyFrame):
                raise failure(answer)
            yield _Events(connection)
        finally:
            connection.close()

    async def flush(self) -> None:
        """Wait until what was cast is written."""
        with _within(GRACE):
            await self._connection.written()

    def close(self) -> None:
        """End the connection, writing what the socket takes at once. Closing twice is harmless."""
        self._connection.close()

    async def _connected(self, deadline: float) -> AsyncConnection:
        """Return a connection that is not broken, by this time of ``time.monotonic``."""
        if not self._connection.broken:
            return self._connection
        with _within(deadline - time.monotonic()):
            async with self._connecting:
                if self._connection.broken:
                    self._connection.close()
                    self._connection = await AsyncConnection.open(self._path, self._name, self._timeout)
        return self._connection


class _Events:
    """Iteration over a subscription's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
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


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    with broken_connections_are_failures(), anyio.fail_after(seconds):
        yield
