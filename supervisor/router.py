"""From the wire to the actors and back: what stands behind the socket server.

Nothing here waits. A request becomes a pending call with its deadline; its answer goes out when the actor uses the
token, dies, or the deadline passes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from protocol.handler import Answer, Body, Events, Peer, Refusal
from protocol.messages.common import Message, Request
from protocol.wire import Code, Kind, MalformedMessage
from supervisor.context import Context
from supervisor.errors import (
    CallTimeout,
    ConnectionLost,
    HandlerFailed,
    MailboxFull,
    NoSuchActor,
    NotRunning,
    Refused,
    Restarting,
    Stopping,
)
from supervisor.reply import Pending
from supervisor.tracing import PREFIX

if TYPE_CHECKING:
    from supervisor.mailbox import Cell

_CODES: dict[type[Exception], str] = {
    NotRunning: Code.NOT_RUNNING,
    Restarting: Code.RESTARTING,
    Stopping: Code.STOPPING,
    MailboxFull: Code.MAILBOX_FULL,
    CallTimeout: Code.TIMED_OUT,
    ConnectionLost: Code.CONNECTION_LOST,
}


class Router:
    """A :class:`protocol.handler.Handler` over the refs of a tree."""

    def __init__(
        self, context: Context, public: Mapping[str, tuple[type[Message], ...]], topics: Collection[str]
    ) -> None:
        """Args: ``public``: what each actor takes from outside; ``topics``: what may be subscribed to."""
        self._context = context
        self._doors = {name: _Door(context.ref(name).cell, messages) for name, messages in public.items()}
        self._topics = topics

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        """Begin a call; see :meth:`protocol.handler.Handler.request`."""
        door = self._doors.get(to) or self._nobody(to)
        message = door.decode(body)
        if not isinstance(message, Request):
            text = f"{type(message).__name__} is not answered: cast it"
            raise Refusal(Code.BAD_MESSAGE, text, {"cast": True})
        if type(message) in door.commands:
            self._note(to, message, peer)
        cell = door.cell
        pending: Pending[Any] = Pending(to, message, timeout, cell.deadlines, cell.backend)
        cell.call(pending)
        pending.on_done(partial(_pass_on, answer))
        return pending.cancel

    def cast(self, to: str, body: Body, peer: Peer) -> None:
        """Deliver a message that is not answered; see :meth:`protocol.handler.Handler.cast`."""
        door = self._doors.get(to) or self._nobody(to)
        message = door.decode(body)
        if type(message) in door.commands:
            self._note(to, message, peer)
        try:
            door.cell.cast(message)
        except MailboxFull as error:
            raise Refusal(Code.MAILBOX_FULL, str(error)) from error

    def subscribe(self, topics: Sequence[str]) -> Events:
        """Begin to collect events; see :meth:`protocol.handler.Handler.subscribe`."""
        for topic in topics:
            if topic.startswith(PREFIX):
                try:
                    self._context.introspection.require_actor(topic.removeprefix(PREFIX))
                except NoSuchActor as error:
                    raise Refusal(Code.UNKNOWN_ACTOR, str(error)) from error
            elif topic not in self._topics:
                known = ", ".join([*sorted(self._topics), f"{PREFIX}ACTOR"])
                raise Refusal(Code.UNKNOWN_TOPIC, f"no topic {topic}; there are: {known}")
        return self._context.subscribe(topics)

    def join(self, name: str, peer: Peer) -> Callable[[socket.socket], None]:
        """Let a guest in; see :meth:`protocol.handler.Handler.join`."""
        try:
            return self._context.introspection.admit(name, peer.pid)
        except Refused as error:
            raise Refusal(error.code, str(error)) from error

    def _nobody(self, to: str) -> NoReturn:
        known = ", ".join(sorted(self._doors))
        raise Refusal(Code.UNKNOWN_ACTOR, f"nobody here takes messages as {to!r}; there are: {known}")

    def _note(self, to: str, message: Message, peer: Peer) -> None:
        """Log who commanded what."""
        if not self._context.is_heard("logs"):
            return
        entry: dict[str, Any] = {"level": "info", "actor": self._context.name, "event": "command", "to": to}
        entry["command"] = type(message).__name__
        entry["pid"] = peer.pid
        entry["uid"] = peer.uid
        self._context.publish("logs", entry)


class _Door:
    """What is needed to let a message in to an actor."""

    __slots__ = ("_kinds", "cell", "commands", "kind")

    def __init__(self, cell: Cell, messages: tuple[type[Message], ...]) -> None:
        self.cell = cell
        self.kind = Kind(reduce(or_, messages))
        self.commands = {kind for kind in messages if not kind.__name__.startswith(("Get", "Show", "Wait"))}
        """Of which it is noted who said them. Reading is not."""
        self._kinds = messages

    def decode(self, body: Body) -> Message:
        """Return the message. What is wrong with one that is none is told with the name of its type.

        Raises:
            Refusal: ``bad_message``.
            MalformedMessage: it does not even say of which type it is.
        """
        try:
            return body.decode(self.kind)  # type: ignore[no-any-return]  # it is one of the kinds
        except MalformedMessage as error:
            tag: str = body.decode(_ANY).type
            takes = sorted(str(kind.__struct_config__.tag) for kind in self._kinds)
            if tag in takes:
                raise Refusal(Code.BAD_MESSAGE, f"{tag}: {error}") from error
            text = f"{self.cell.name} does not take {tag!r}; it takes: {', '.join(takes)}"
            raise Refusal(Code.BAD_MESSAGE, text) from error


class _Tagged(msgspec.Struct):
    """As much of a message as every one has."""

    type: str


_ANY = Kind(_Tagged)


def _pass_on(answer: Answer, done: Pending[Any]) -> None:
    error = done.error
    if error is None:
        answer.reply(done.result())
    elif isinstance(error, HandlerFailed):
        answer.fail(error.code or Code.HANDLER_FAILED, str(error))
    else:
        answer.fail(_CODES.get(type(error), Code.CONNECTION_LOST), str(error))
