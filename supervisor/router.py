"""From the wire to the actors and back: what stands behind the socket server.

Nothing here waits. A request becomes a pending call with its deadline; its answer goes out when the actor uses the
token, dies, or the deadline passes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

from protocol.handler import Answer, Body, Events, Peer, Refusal
from protocol.messages.common import Message, Request
from protocol.wire import Code
from supervisor.context import Context
from supervisor.errors import (
    CallTimeout,
    ConnectionLost,
    HandlerFailed,
    MailboxFull,
    NoSuchActor,
    NotRunning,
    Restarting,
    Stopping,
)
from supervisor.reply import Pending
from supervisor.tracing import PREFIX

TOPICS = frozenset({"crashes", "lifecycle"})
"""What every tree publishes by itself."""

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
        self._unions: dict[str, Any] = {name: reduce(or_, messages) for name, messages in public.items()}
        self._topics = topics

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        """Begin a call; see :meth:`protocol.handler.Handler.request`."""
        message = self._decode(to, body)
        if not isinstance(message, Request):
            text = f"{type(message).__name__} is not answered: cast it"
            raise Refusal(Code.BAD_MESSAGE, text, {"cast": True})
        self._note(to, message, peer)
        pending = self._context.ref(to).request(message, timeout=timeout)
        pending.on_done(lambda done: _pass_on(done, answer))
        return pending.cancel

    def cast(self, to: str, body: Body, peer: Peer) -> None:
        """Deliver a message that is not answered; see :meth:`protocol.handler.Handler.cast`."""
        message = self._decode(to, body)
        self._note(to, message, peer)
        try:
            self._context.ref(to).cast(message)
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
        raise Refusal(Code.NOT_JOINABLE, f"{name} cannot be joined: this tree declares no place for a guest")

    def _decode(self, to: str, body: Body) -> Message:
        if to not in self._unions:
            known = ", ".join(sorted(self._unions))
            raise Refusal(Code.UNKNOWN_ACTOR, f"nobody here takes messages as {to!r}; there are: {known}")
        message: Message = body.decode(self._unions[to])
        return message

    def _note(self, to: str, message: Message, peer: Peer) -> None:
        """Log who commanded what. Reading is not noted."""
        name = type(message).__name__
        if not name.startswith(("Get", "Show", "Wait")):
            entry = {"level": "info", "actor": self._context.name, "event": "command", "to": to, "command": name}
            self._context.publish("logs", {**entry, "pid": peer.pid, "uid": peer.uid})


def _pass_on(done: Pending[Any], answer: Answer) -> None:
    error = done.error
    if error is None:
        answer.reply(done.result())
    elif isinstance(error, HandlerFailed):
        answer.fail(error.code or Code.HANDLER_FAILED, str(error))
    else:
        answer.fail(_CODES.get(type(error), Code.CONNECTION_LOST), str(error))
