"""The blocking client, for people and scripts: standard library sockets and typed messages, no event loop.

with Client.connect(home.socket) as client:
    jobs = client.call("QueueManager", GetQueue())
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from protocol.dialogue import Dialogue, Lagged, broken_connections_are_failures, event, failure, lost, outcome, welcomed
from protocol.listening import peer_of
from protocol.messages.common import Message, Request, TailEvent
from protocol.quick import GRACE, Failed, NoDaemon, open_socket
from protocol.wire import CLOSING, Code, ErrorFrame, ReplyFrame, ServerFrame, WelcomeFrame

__all__ = ["Client", "Failed", "Lagged", "NoDaemon", "Subscription"]

R = TypeVar("R")

NAME = "stokehold/0.1.0"
CHUNK = 1 << 16


class Client:
    """One connection to a daemon. Not for use by several threads at once."""

    def __init__(self, path: Path, name: str, timeout: float) -> None:
        self._path = path
        self._name = name
        self._timeout = timeout
        self._connection = _Connection(path, name, timeout)

    @classmethod
    def connect(cls, path: str | Path, *, name: str = NAME, timeout: float = 5.0) -> Self:
        """Return a client that has exchanged hellos with the daemon at this socket, within ``timeout`` seconds.

        Raises:
            NoDaemon: nothing listens there.
            Failed: it refused us (``not_allowed``, ``incompatible``, ``full``), or was silent (``timed_out``).
        """
        return cls(Path(path), name, timeout)

    @property
    def server(self) -> WelcomeFrame:
        """What the server said of itself: version, name, pid, instance."""
        return self._connection.welcome

    @property
    def server_pid(self) -> int:
        """The server's process as it is numbered here; 0 if it cannot be seen from here, as in another container."""
        return self._connection.peer.pid

    def call(self, to: str, message: Request[R], timeout: float = 5.0) -> R:
        """Send a request to an actor and return its reply; ``timeout`` in seconds bounds the answer.

        If the connection breaks while the server lives on, the same request is sent again once over a new one: the
        server answers it from memory if it was done already. A client whose connection broke earlier connects anew.

        Raises:
            Failed: with the code of ``gen_server:call``'s exits, or the actor's own refusal.
            NoDaemon: nothing listens any more, and nothing was sent.
        """
        connection = self._connected()
        id, data = connection.dialogue.request(to, message, timeout)
        deadline = time.monotonic() + timeout + GRACE
        try:
            return outcome(connection.exchange(id, data, deadline), message)
        except Failed as error:
            if error.code != Code.CONNECTION_LOST:
                raise
            connection.close()
            try:
                again = self._connected()
            except NoDaemon:
                raise error from None
            if again.welcome.instance != connection.welcome.instance:
                raise
        return outcome(again.exchange(id, data, deadline), message)

    def cast(self, to: str, message: Message) -> None:
        """Send a message to an actor without waiting for an answer.

        Raises:
            Failed: the connection is broken; the next call or cast connects anew.
            NoDaemon: nothing listens any more, and nothing was sent.
        """
        connection = self._connected()
        data = connection.dialogue.cast(to, message)
        try:
            connection.send(data)
        except Failed:
            connection.close()
            raise

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Return the events of these topics from now on, over a connection of their own."""
        return Subscription(_Connection(self._path, self._name, self._timeout), topics, self._timeout)

    def close(self) -> None:
        """End the connection. Closing twice is harmless."""
        self._connection.close()

    def _connected(self) -> _Connection:
        if self._connection.closed:
            self._connection = _Connection(self._path, self._name, self._timeout)
        return self._connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Subscription:
    """The events of some topics, as they come. Iteration ends when the daemon closes the connection."""

    def __init__(self, connection: _Connection, topics: Sequence[str], timeout: float) -> None:
        self._connection = connection
        id, data = connection.dialogue.subscribe(topics)
        try:
            answer = connection.exchange(id, data, time.monotonic() + timeout)
            if not isinstance(answer, ReplyFrame):
                raise failure(answer)
        except Failed:
            connection.close()
            raise

    def __iter__(self) -> Iterator[TailEvent | Lagged]:
        return self

    def __next__(self) -> TailEvent | Lagged:
        """Wait for the next event, without a time limit."""
        try:
            return event(self._connection.receive(None))
        except Failed as error:
            if error.code == Code.CONNECTION_LOST:
                raise StopIteration from error
            raise

    def close(self) -> None:
        """End the subscription. Closing twice is harmless."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Connection:
    """A socket after its hello, with frames in both directions."""

    def __init__(self, path: Path, name: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._socket = socket.socket(fileno=open_socket(path, timeout).detach())
        self.peer = peer_of(self._socket)
        self._received: deque[ServerFrame] = deque()
        self.dialogue = Dialogue()
        try:
            self.send(self.dialogue.hello(name))
            self.welcome = welcomed(self.receive(deadline))
        except Failed:
            self.close()
            raise

    def exchange(self, id: str, data: bytes, deadline: float) -> ServerFrame:
        """Send a request and return the frame that answers it; ``deadline`` on the monotonic clock."""
        try:
            self.send(data)
        except Failed as error:
            if error.code != Code.CONNECTION_LOST:
                raise
            # Why the server hung up stands in what it sent before: read on.
        while True:
            frame = self.receive(deadline)
            if isinstance(frame, ReplyFrame | ErrorFrame) and frame.id == id:
                return frame
            if isinstance(frame, ErrorFrame) and frame.id is None and frame.code in CLOSING:
                self.close()
                raise failure(frame)

    def send(self, data: bytes) -> None:
        with broken_connections_are_failures():
            self._socket.settimeout(GRACE)
            try:
                self._socket.sendall(data)
            except TimeoutError:
                self.close()  # what is said next would be taken for the rest of this message
                raise

    def receive(self, deadline: float | None) -> ServerFrame:
        """Return the next frame; ``deadline`` on the monotonic clock, None to wait for ever."""
        with broken_connections_are_failures():
            while not self._received:
                if deadline is not None:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise TimeoutError
                    self._socket.settimeout(left)
                else:
                    self._socket.settimeout(None)
                data = self._socket.recv(CHUNK)
                if not data:
                    raise lost()
                try:
                    self._received.extend(self.dialogue.feed(data))
                except Failed:
                    self.close()  # its position in the stream is lost
                    raise
        return self._received.popleft()

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        self._socket.close()
