"""The envelopes of the wire: what a connection carries around the messages of the actors.

The client speaks first, with a hello; the server answers with the agreed version. Then requests, casts and
subscriptions go one way, replies, failures and events the other, in any order: an ``id`` of the client's choice pairs
an answer with its request. A request whose id, addressee and body came before is answered from memory, not done again,
so a new request needs a new id. Unknown fields are refused everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from protocol.framing import Encoding

VERSION: Final = 1
"""The one version of the protocol that this code speaks."""

LONGEST_TIMEOUT: Final = 366 * 86400.0
"""No request may wait longer than this, in seconds."""

LARGEST_REPLY: Final = 64 << 20
"""What a client accepts in one message from its own daemon, in bytes. What clients send is bounded by the server."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
ActorName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_TIMEOUT)]
if TYPE_CHECKING:
    Inner = Any
else:
    Inner = msgspec.Raw
"""What an envelope holds: decoded, the bytes of a message, whose type only the addressee knows; to be encoded, the
message itself, so that both are written at once."""
Topics = Annotated[list[str], msgspec.Meta(min_length=1, max_length=32)]


class Code:
    """Codes of :class:`ErrorFrame` that the wire itself uses. An actor's refusal brings its own."""

    # The connection: it is closed after these.
    BAD_HELLO: Final = "bad_hello"
    """The first message was no hello."""
    HELLO_TIMEOUT: Final = "hello_timeout"
    """No hello came in time."""
    INCOMPATIBLE: Final = "incompatible"
    """No version in common; the message says which side is old."""
    BAD_FRAME: Final = "bad_frame"
    """A length of zero or over the limit, or a line over it."""
    FRAME_TIMEOUT: Final = "frame_timeout"
    """A message was begun and not finished in time."""
    NOT_ALLOWED: Final = "not_allowed"
    """Another user's process: only the owner and root may command."""
    FULL: Final = "full"
    """Too many connections."""
    # One message: the connection goes on.
    BAD_MESSAGE: Final = "bad_message"
    """Malformed, of an unknown type, or with an unknown field."""
    BUSY: Final = "busy"
    """Too much in flight on this connection. Nothing was done."""
    UNKNOWN_ACTOR: Final = "unknown_actor"
    """No actor bears this name."""
    UNKNOWN_TOPIC: Final = "unknown_topic"
    NOT_JOINABLE: Final = "not_joinable"
    """This name is served by the tree itself."""
    TAKEN: Final = "taken"
    """Another process serves this name."""
    REPLY_TOO_LARGE: Final = "reply_too_large"
    """It was done, but the answer is over the limit of one message."""
    # The actor: the outcomes of a call (gen_server:call/3 exits).
    NOT_RUNNING: Final = "not_running"
    RESTARTING: Final = "restarting"
    STOPPING: Final = "stopping"
    MAILBOX_FULL: Final = "mailbox_full"
    TIMED_OUT: Final = "timed_out"
    """No answer in time. Whether it was done is unknown."""
    CONNECTION_LOST: Final = "connection_lost"
    """The connection broke before the answer. Whether it was done is unknown."""
    HANDLER_FAILED: Final = "handler_failed"
    """The actor met an exception in handling this."""


CLOSING: Final = frozenset(
    {
        Code.BAD_HELLO,
        Code.HELLO_TIMEOUT,
        Code.INCOMPATIBLE,
        Code.BAD_FRAME,
        Code.FRAME_TIMEOUT,
        Code.NOT_ALLOWED,
        Code.FULL,
    }
)
"""Failures without an id after which the server closes the connection."""

NOTHING_DONE: Final = frozenset(
    {
        Code.BUSY,
        Code.UNKNOWN_ACTOR,
        Code.BAD_MESSAGE,
        Code.NOT_RUNNING,
        Code.RESTARTING,
        Code.STOPPING,
        Code.MAILBOX_FULL,
    }
)
"""Failures after which the actor certainly did nothing, so that the same request may be tried again."""


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """One message of a connection."""


# ---------------------------------------------------------------- from the client


class HelloFrame(Frame, frozen=True, tag="hello"):
    """The first message of a connection: the versions that the client speaks, and who it is (``name/1.0``)."""

    min: int
    max: int
    client: Annotated[str, msgspec.Meta(max_length=256)]


class RequestFrame(Frame, frozen=True, tag="request"):
    """Ask an actor; the answer is a reply or an error with the same id. ``timeout`` is in seconds."""

    id: Id
    to: ActorName
    body: Inner
    timeout: Timeout = 5.0


class CastFrame(Frame, frozen=True, tag="cast"):
    """Tell an actor something. Not answered, except by an error without an id if nobody can take it."""

    to: ActorName
    body: Inner


class JoinFrame(Frame, frozen=True, tag="join"):
    """Serve this name from now on. The last thing said here, until it is answered, and on msgpack connections only.

    After a reply (null) the connection is a link: what it carries then is not of this schema, but what the library says
    to its own process children. After an error it goes on as before.
    """

    id: Id
    name: ActorName


class SubscribeFrame(Frame, frozen=True, tag="subscribe"):
    """Receive the events of these topics from now on. Acknowledged by a reply with an empty body (null)."""

    id: Id
    topics: Topics


# ---------------------------------------------------------------- from the server


class WelcomeFrame(Frame, frozen=True, tag="welcome"):
    """The answer to a hello. ``instance`` differs after each start of the server: its memory of answers is new."""

    version: int
    server: str
    pid: int
    instance: str


class ReplyFrame(Frame, frozen=True, tag="reply"):
    """The answer to a request."""

    id: str
    body: Inner


class ErrorFrame(Frame, frozen=True, tag="error"):
    """A typed failure: of the request with this id, or without an id of the connection or of a cast."""

    code: str
    message: str
    id: str | None = None
    detail: Any = None


class EventFrame(Frame, frozen=True, tag="event"):
    """One event of a subscription."""

    id: str
    topic: str
    at: datetime
    data: dict[str, Any]


class LaggedFrame(Frame, frozen=True, tag="lagged"):
    """At this place of the subscription, ``missed`` events were dropped because they were not read in time."""

    id: str
    missed: int


ClientFrame = HelloFrame | RequestFrame | CastFrame | SubscribeFrame | JoinFrame
ServerFrame = WelcomeFrame | ReplyFrame | ErrorFrame | EventFrame | LaggedFrame


class MalformedMessage(Exception):
    """A complete payload that is not a message of the wire. ``id`` is the request's, where it could be read."""

    def __init__(self, text: str, id: str | None = None) -> None:
        super().__init__(text)
        self.id = id


class _OnlyId(msgspec.Struct):
    id: Id


class Kind:
    """A type or union that messages are decoded to often: a union itself takes longer to look up than to decode."""

    __slots__ = ("type",)

    def __init__(self, type: Any) -> None:
        self.type = type


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises of bytes that are no such message."""


class Codec:
    """Reads and writes payloads in one encoding. Stateless; one for each encoding in :data:`CODECS`."""

    def __init__(self, encoding: Encoding) -> None:
        module = msgspec.json if encoding == "json" else msgspec.msgpack
        self.encoding: Encoding = encoding
        self.decode_from_server: Callable[[bytes], ServerFrame] = module.Decoder(ServerFrame).decode
        """Raises one of :data:`UNREADABLE`."""
        self._from_client: Any = module.Decoder(ClientFrame).decode
        self._id: Any = module.Decoder(_OnlyId).decode

        @lru_cache(maxsize=1024)
        def decoder(kind: Any) -> Any:
            return module.Decoder(kind.type if isinstance(kind, Kind) else kind).decode

        self.decoder: Callable[[Any], Callable[[msgspec.Raw | bytes], Any]] = decoder
        """Returns what decodes a type, a union of types, or a :class:`Kind`. It raises one of :data:`UNREADABLE`.

        One for each: making one for a union costs several times what decoding a message does."""

    def decode_body(self, body: msgspec.Raw | bytes, kind: Any) -> Any:
        """Return the message inside an envelope: of a type, a union of types, or a :class:`Kind`.

        Raises:
            MalformedMessage: it is not of that type; the text says where and why.
        """
        try:
            return self.decoder(kind)(body)
        except UNREADABLE as error:
            raise MalformedMessage(str(error)) from error

    def from_client(self, payload: bytes) -> ClientFrame:
        """Return what a client sent, or raise :class:`MalformedMessage`."""
        try:
            return self._from_client(payload)  # type: ignore[no-any-return]
        except UNREADABLE as error:
            raise MalformedMessage(str(error), self._id_of(payload)) from error

    def from_server(self, payload: bytes) -> ServerFrame:
        """Return what a server sent, or raise :class:`MalformedMessage`."""
        try:
            return self.decode_from_server(payload)
        except UNREADABLE as error:
            raise MalformedMessage(str(error), self._id_of(payload)) from error

    def _id_of(self, payload: bytes) -> str | None:
        try:
            return self._id(payload).id  # type: ignore[no-any-return]
        except UNREADABLE:
            return None


CODECS: Final[dict[Encoding, Codec]] = {"msgpack": Codec("msgpack"), "json": Codec("json")}
