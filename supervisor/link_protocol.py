"""What a tree and an actor outside of its process say to each other: one tagged msgpack map in each frame of the link.

The link is the socketpair of a process child, or the connection over which a guest has joined.

Bodies are messages of actors, encoded apart (``msgspec.Raw``) and decoded by the type that the receiver handles under
the name given: unknown types, unknown fields and wrong values are refused. Names of types are looked up among the
message classes that are imported already; nothing is imported or unpickled because a peer said so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from protocol.messages.common import Message
from supervisor import errors
from supervisor.errors import CallFailed, ConnectionLost, HandlerFailed
from supervisor.mailbox import LostWhy, Overflow
from supervisor.reasons import Crash, Reason, Shutdown, StartFailed, Timeout
from supervisor.reply import as_call_failure
from supervisor.reports import cut

MAX_FRAME = 16 << 20
"""Bytes in one frame, either way."""


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """One map on the link."""


# ---------------------------------------------------------------- daemon to child


class Start(Frame, frozen=True):
    """The first frame: what to run."""

    name: str
    incarnation: int
    shutdown: float | Literal["infinity"]
    """How long ``on_stop`` may take after a crash, in seconds; after a stop the daemon counts."""
    target: str = ""
    """``module:Class``. Empty for a guest, which knows what it serves."""
    arguments: msgspec.Raw = msgspec.Raw(b"\x80")
    """The keyword arguments of the class."""


class Deliver(Frame, frozen=True):
    """A letter for the child's mailbox. ``timeout`` is set for a call: the seconds that its caller still waits."""

    letter: int
    kind: str
    body: msgspec.Raw
    timeout: float | None = None


class GiveUp(Frame, frozen=True):
    """The caller of this letter has left: its token is done."""

    letter: int


class Stop(Frame, frozen=True):
    """Finish the message in hand, run ``on_stop``, and end with this reason. Who takes too long is cut off."""

    reason: Reason
    returns: bool = False
    """The name will be served again, so a guest may join again."""


class Inject(Frame, frozen=True):
    """The fault port: raise this error as if a handler had."""

    error_type: str
    text: str


class Suspend(Frame, frozen=True):
    """Handle nothing but system messages; settled under this number when it is so, within ``timeout`` seconds."""

    number: int
    timeout: float


class Resume(Frame, frozen=True):
    """Handle messages again; settled like :class:`Suspend`."""

    number: int
    timeout: float


class Trace(Frame, frozen=True):
    """Tell of each message, or tell no more."""

    on: bool


# ---------------------------------------------------------------- child to daemon


class Acked(Frame, frozen=True):
    """``on_start`` has returned. The mailbox is kept by the daemon from now on, by this policy."""

    bound: Annotated[int, msgspec.Meta(ge=1)]
    overflow: Overflow


class Taken(Frame, frozen=True):
    """The actor has this letter in hand. Sent before the handler runs, so it is never delivered twice."""

    letter: int
    kind: str
    """The name of its type, for the crash report."""


class Deaf(Frame, frozen=True):
    """It was asked to stop, and takes no more letters in hand; what it did take was told before this."""


class Beat(Frame, frozen=True):
    """There is progress; the next must come within ``limit`` seconds (None: the limit of the specification)."""

    phase: str
    limit: float | None


class Ending(Frame, frozen=True):
    """The reason is known, and no more letters are taken. The process ends as soon as ``on_stop`` has run."""

    reason: Reason


class Worse(Frame, frozen=True):
    """The clean-up failed: this reason takes the place of the one in :class:`Ending`."""

    reason: Reason


class Publish(Frame, frozen=True):
    topic: str
    data: dict[str, Any]


class RequestShutdown(Frame, frozen=True):
    reason: str
    exit_code: int


class Summary(Frame, frozen=True):
    """What the actor says of itself."""

    values: dict[str, Any]


class Watch(Frame, frozen=True):
    """Tell each end of an incarnation of this name, under this number."""

    watch: int
    name: str


class Unwatch(Frame, frozen=True):
    watch: int


class Link(Frame, frozen=True):
    """Whatever ends this incarnation, other than normally, shall crash that of ``name`` that runs now."""

    name: str


class Lost(Frame, frozen=True):
    """A message became a dead letter in the child's process."""

    to: str
    kind: str
    why: LostWhy


class Cast(Frame, frozen=True):
    """A message to an actor of the tree. Where ``sent`` is set, the child waits until :class:`Settled` says: room."""

    to: str
    kind: str
    body: msgspec.Raw
    sent: int | None = None


class Call(Frame, frozen=True):
    call: int
    to: str
    kind: str
    body: msgspec.Raw
    timeout: Annotated[float, msgspec.Meta(ge=0)]


class Forget(Frame, frozen=True):
    """The child gave up this call."""

    call: int


# ---------------------------------------------------------------- both ways


class Fail(Frame, frozen=True):
    """To the child: crash now with this reason. To the daemon: crash that incarnation of ``name``."""

    reason: Reason
    name: str = ""
    incarnation: int = 0


class WentDown(Frame, frozen=True):
    """To the child: the watched actor's incarnation has ended."""

    watch: int
    name: str
    reason: Reason
    incarnation: int


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A :class:`CallFailed` on its way to the caller."""

    kind: str
    text: str
    error_type: str = ""
    traceback: str = ""
    code: str | None = None


class Settled(Frame, frozen=True):
    """A letter (from the child) or a call (from the daemon) is answered: with a value, or with a failure."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    failure: Failure | None = None


ToChild = Start | Deliver | GiveUp | Stop | Inject | Suspend | Resume | Trace | Fail | WentDown | Settled
ToDaemon = (
    Acked | Taken | Deaf | Beat | Ending | Worse | Publish | RequestShutdown | Summary | Watch | Unwatch | Link
    | Lost | Cast | Call | Forget | Fail | Settled
)  # fmt: skip

read_to_child = msgspec.msgpack.Decoder(ToChild).decode
_to_daemon: msgspec.msgpack.Decoder[ToDaemon] = msgspec.msgpack.Decoder(ToDaemon)
_encode = msgspec.msgpack.Encoder().encode


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises of bytes that a peer made up."""


class BadFrame(Exception):
    """A frame that is not one of ours, or may not come now."""


def read_to_daemon(payload: bytes) -> ToDaemon:
    """Decode what a child sent. Raises :class:`BadFrame`."""
    try:
        return _to_daemon.decode(payload)
    except UNREADABLE as error:
        raise BadFrame(str(error)) from error


MOST_TEXT = 64 << 10
"""Characters of a text that is for people. An error's own text may be of any length, and a frame may not."""


def plain(text: str) -> str:
    """Return a text that can be sent: an error may quote a file name that is not UTF-8, or a whole file."""
    return cut(text, MOST_TEXT).encode("utf-8", "backslashreplace").decode()


def sendable(reason: Reason) -> Reason:
    """Return the reason as it can travel: without the live exception, and in plain text."""
    if isinstance(reason, Crash | StartFailed):
        return type(reason)(plain(reason.error_type), plain(reason.text), plain(reason.traceback))
    if isinstance(reason, Shutdown | Timeout):
        return type(reason)(plain(reason.detail))
    return reason


class UnknownMessage(HandlerFailed):
    """What cannot be sent, or what the receiver does not handle; the same answer as of a task: ``not_handled``."""

    def __init__(self, text: str) -> None:
        super().__init__("Refused", text, code="not_handled")


def kind_of(message: Message) -> str:
    """Return the name under which a message's type travels: tags alone repeat between actors."""
    klass = type(message)
    return f"{klass.__module__}:{klass.__qualname__}"


def body_of(value: object) -> msgspec.Raw:
    """Encode a message or a reply. Raises ``TypeError`` or ``ValueError`` for what msgpack cannot carry."""
    return msgspec.Raw(_encode(value))


class Bodies:
    """Decodes bodies into the message types of one side. Refuses with :class:`UnknownMessage`."""

    def __init__(self, kinds: Iterable[type[Message]] | None = None) -> None:
        """Args: ``kinds``: the only types accepted; None: every message type that is imported."""
        self._only = None if kinds is None else {f"{kind.__module__}:{kind.__qualname__}": kind for kind in kinds}
        self._decoders: dict[str, msgspec.msgpack.Decoder[Message]] = {}

    def decode(self, kind: str, body: msgspec.Raw) -> Message:
        decoder = self._decoders.get(kind)
        if decoder is None:
            klass = _imported(kind) if self._only is None else self._only.get(kind)
            if klass is None:
                # The program that was started has another name in each process.
                why = "; put its class into a module of its own, which both import" * kind.startswith("__main__:")
                raise UnknownMessage(f"a message {kind} is not handled here{why}")
            decoder = self._decoders[kind] = msgspec.msgpack.Decoder(klass)
        try:
            return decoder.decode(body)
        except UNREADABLE as error:
            raise UnknownMessage(f"not a valid {kind}: {error}") from error


def _imported(kind: str) -> type[Message] | None:
    """Look a message class up, in a time that does not depend on what a peer may ask for."""
    module, _, name = kind.partition(":")
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and issubclass(found, Message) else None


_FAILURES: dict[str, type[CallFailed]] = {
    klass.__name__: klass
    for klass in vars(errors).values()
    if isinstance(klass, type) and issubclass(klass, CallFailed) and klass is not HandlerFailed
}


def failure_of(error: BaseException) -> Failure:
    """Describe why a call got no value."""
    failed = as_call_failure(error)
    if isinstance(failed, HandlerFailed):
        text, trace = plain(failed.text), plain(failed.traceback)
        return Failure("HandlerFailed", text, failed.error_type, trace, failed.code)
    return Failure(type(failed).__name__, plain(str(failed)))


def error_of(failure: Failure) -> CallFailed:
    """Return the exception that a failure describes."""
    if failure.kind == "HandlerFailed":
        return HandlerFailed(failure.error_type, failure.text, failure.traceback, failure.code)
    return _FAILURES.get(failure.kind, ConnectionLost)(failure.text)
