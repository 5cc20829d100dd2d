"""What a socket server asks of whoever stands behind it. The server itself knows nothing of actors."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from protocol.messages.common import TailEvent
from protocol.wire import UNREADABLE, Code, Codec, MalformedMessage


class Refusal(Exception):
    """Raised by a handler: this cannot be taken. The client gets it as a typed failure; nothing else is harmed."""

    def __init__(self, code: str, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


def told(error: Refusal | MalformedMessage) -> tuple[str, str, Any]:
    """Return the code, the message and the detail that the client is told."""
    if isinstance(error, Refusal):
        return error.code, str(error), error.detail
    return Code.BAD_MESSAGE, str(error), None


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel named it when it connected. For the log: a pid can be reused."""

    pid: int
    uid: int
    gid: int


class Body:
    """A message in its envelope, not yet decoded, for only the addressee knows its type."""

    __slots__ = ("_codec", "_raw")

    def __init__(self, raw: msgspec.Raw, codec: Codec) -> None:
        self._raw = raw
        self._codec = codec

    def decode(self, kind: Any) -> Any:
        """Return the message as one of ``kind``, a struct or a union of them.

        Raises:
            MalformedMessage: it is none, or has an unknown field. A handler lets it pass: the client is told.
        """
        try:
            return self._codec.decoder(kind)(self._raw)
        except UNREADABLE as error:
            raise MalformedMessage(str(error)) from error


class Answer(Protocol):
    """The way back of one request: exactly one of the two is called, once, at any time, on the loop's thread.

    Calls after the first are ignored, as in a call whose caller gave up.
    """

    def reply(self, value: Any) -> None:
        """Answer with a value that msgspec can encode."""

    def fail(self, code: str, message: str, detail: Any = None) -> None:
        """Answer with a typed failure; codes stand in ``protocol.wire.Code``."""


class Events(Protocol):
    """A running subscription. ``lagged`` counts the events dropped so far because they were not taken in time."""

    @property
    def lagged(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[TailEvent]: ...

    def close(self) -> None:
        """End it and let go of what it holds."""


class Handler(Protocol):
    """Takes what clients send. No method may block or wait: the server's loop stands still meanwhile."""

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        """Begin a request, and return how to give it up when its caller has gone.

        The answer may come at any time, also before this returns. The handler keeps the time limit (seconds): it
        fails the answer with ``timed_out`` when it is over.

        Raises:
            Refusal: it cannot be begun.
            MalformedMessage: from decoding the body.
        """
        ...

    def cast(self, to: str, body: Body, peer: Peer) -> None:
        """Deliver a message that is not answered. Raises as :meth:`request` does."""

    def subscribe(self, topics: Sequence[str]) -> Events:
        """Begin to collect the events of these topics. Raises Refusal (``unknown_topic``)."""
        ...

    def join(self, name: str, peer: Peer) -> Callable[[socket.socket], None]:
        """Let a process in that wants to serve this name.

        What is returned is called at once, with the socket: non-blocking, nothing of it read or left to be written, and
        its own from then on.

        Raises:
            Refusal: ``unknown_actor``, ``not_joinable``, ``taken``, or why the place is closed at present.
        """
        ...
