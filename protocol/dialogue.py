"""The client's side of a conversation, without input or output: both the blocking and the async client speak by it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import TypeVar

import msgspec

from protocol.framing import FrameDecoder, FrameError, encode_frame
from protocol.messages.common import Message, Record, Request, TailEvent, reply_type
from protocol.quick import Failed
from protocol.wire import (
    CODECS,
    LARGEST_REPLY,
    UNREADABLE,
    VERSION,
    CastFrame,
    Code,
    ErrorFrame,
    EventFrame,
    HelloFrame,
    JoinFrame,
    LaggedFrame,
    ReplyFrame,
    RequestFrame,
    ServerFrame,
    SubscribeFrame,
    WelcomeFrame,
)

R = TypeVar("R")

_codec = CODECS["msgpack"]
_decode = _codec.decode_from_server


@cache
def _reply_decoder(message: type[Request[R]]) -> Callable[[msgspec.Raw], R]:
    return _codec.decoder(reply_type(message))


class Lagged(Record, frozen=True):
    """Stands in a subscription at the place where ``missed`` events were dropped: they were read too slowly."""

    missed: int


class Dialogue:
    """One connection's worth of frames to write and frames read. Request ids never repeat, in any process."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder(LARGEST_REPLY)
        self._prefix = os.urandom(8).hex()
        self._numbers = count(1)

    def hello(self, client: str) -> bytes:
        """Return the first bytes to send."""
        return encode_frame(HelloFrame(min=VERSION, max=VERSION, client=client))

    def request(self, to: str, message: Request[R], timeout: float) -> tuple[str, bytes]:
        """Return the id of a new request, and its bytes."""
        id = self._id()
        return id, encode_frame(RequestFrame(id, to, message, timeout))

    def cast(self, to: str, message: Message) -> bytes:
        """Return the bytes of a cast."""
        return encode_frame(CastFrame(to, message))

    def subscribe(self, topics: Sequence[str]) -> tuple[str, bytes]:
        """Return the id of a new subscription, and its bytes."""
        id = self._id()
        return id, encode_frame(SubscribeFrame(id=id, topics=list(topics)))

    def join(self, name: str) -> bytes:
        """Return the bytes of a request to serve this name."""
        return encode_frame(JoinFrame(id=self._id(), name=name))

    def feed(self, data: bytes) -> list[ServerFrame]:
        """Take what was received and return the complete frames in it.

        Raises:
            Failed: ``bad_frame``: this is not a stokehold server, or a newer one.
        """
        try:
            return [_decode(payload) for payload in self._decoder.feed(data)]
        except (FrameError, *UNREADABLE) as error:
            raise Failed(Code.BAD_FRAME, f"the server sent something unreadable: {error}") from error

    def _id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


def welcomed(frame: ServerFrame) -> WelcomeFrame:
    """Return the welcome, or raise :class:`Failed` with what the server said instead."""
    if isinstance(frame, WelcomeFrame):
        return frame
    raise failure(frame)


def outcome(frame: ServerFrame, message: Request[R]) -> R:
    """Return the reply to a request, decoded to the type that the request declares, or raise :class:`Failed`."""
    if not isinstance(frame, ReplyFrame):
        raise failure(frame)
    try:
        return _reply_decoder(type(message))(frame.body)  # type: ignore[no-any-return]
    except UNREADABLE as error:
        raise Failed(Code.BAD_MESSAGE, f"the reply to {type(message).__name__} is unreadable: {error}") from error


def event(frame: ServerFrame) -> TailEvent | Lagged:
    """Return what a frame of a subscription tells, or raise :class:`Failed`."""
    if isinstance(frame, EventFrame):
        return TailEvent(topic=frame.topic, at=frame.at, data=frame.data)
    if isinstance(frame, LaggedFrame):
        return Lagged(frame.missed)
    raise failure(frame)


def failure(frame: ServerFrame) -> Failed:
    """Return the failure that a frame tells of, or that it is when nobody waited for it."""
    if isinstance(frame, ErrorFrame):
        return Failed(frame.code, frame.message, frame.detail)
    return Failed(Code.BAD_MESSAGE, f"the server sent an unexpected {type(frame).__name__}")


def lost(error: OSError | None = None) -> Failed:
    """Return the failure of whoever waits on a connection that ended."""
    why = f": {error}" if error else " before it answered"
    return Failed(Code.CONNECTION_LOST, f"the connection to the daemon ended{why}; whether it was done is unknown")


def late() -> Failed:
    """Return the failure of whoever waited too long for an answer."""
    return Failed(Code.TIMED_OUT, "no answer in time; whether it was done is unknown")


@contextmanager
def broken_connections_are_failures() -> Iterator[None]:
    """Turn the ways in which a socket can break into :class:`Failed`."""
    try:
        yield
    except TimeoutError as error:
        raise late() from error
    except OSError as error:
        raise lost(error) from error
