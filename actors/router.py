"""From the wire to the actors and back: what stands behind the socket server.

Nothing here waits. A request becomes a pending call with its deadline; its answer goes out when the actor uses the
token, dies, or the deadline passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

from protocol.handler import Answer, Body, Events, Peer, Refusal
from protocol.messages.common import Message, Request
from protocol.messages.public import PUBLIC
from protocol.wire import Code
from supervisor import (
    CallTimeout,
    ConnectionLost,
    Context,
    HandlerFailed,
    MailboxFull,
    NotRunning,
    Pending,
    Restarting,
    Stopping,
)

TOPICS = frozenset({"state", "steps", "queue", "crashes", "logs", "lifecycle"})

_CODES: dict[type[Exception], str] = {
    NotRunning: Code.NOT_RUNNING,
    Restarting: Code.RESTARTING,
    Stopping: Code.STOPPING,
    MailboxFull: Code.MAILBOX_FULL,
    CallTimeout: Code.TIMED_OUT,
    ConnectionLost: Code.CONNECTION_LOST,
}

_UNIONS: dict[str, Any] = {name: reduce(or_, messages) for name, messages in PUBLIC.items()}


class Router:
    """A :class:`protocol.handler.Handler` over the refs of a tree."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        """Begin a call; see :meth:`protocol.handler.Handler.request`."""
        message = self._decode(to, body)
        if not isinstance(message, Request):
            raise Refusal(Code.BAD_MESSAGE, f"{type(message).__name__} is not answered: cast it")
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
        unknown = [topic for topic in topics if topic not in TOPICS]
        if unknown:
            raise Refusal(Code.UNKNOWN_TOPIC, f"no topic {', '.join(unknown)}; there are: {', '.join(sorted(TOPICS))}")
        return self._context.subscribe(topics)

    def _decode(self, to: str, body: Body) -> Message:
        if to not in _UNIONS:
            raise Refusal(Code.UNKNOWN_ACTOR, f"nobody here is called {to!r}; there are: {', '.join(sorted(PUBLIC))}")
        message: Message = body.decode(_UNIONS[to])
        return message

    def _note(self, to: str, message: Message, peer: Peer) -> None:
        """Log who commanded what. Reading is not noted."""
        name = type(message).__name__
        if not name.startswith(("Get", "Show", "Wait")):
            entry = {"level": "info", "actor": "ControlSocket", "event": "command", "to": to, "command": name}
            self._context.publish("logs", {**entry, "pid": peer.pid, "uid": peer.uid})


def _pass_on(done: Pending[Any], answer: Answer) -> None:
    error = done.error
    if error is None:
        answer.reply(done.result())
    elif isinstance(error, HandlerFailed):
        answer.fail(error.code or Code.HANDLER_FAILED, str(error))
    else:
        answer.fail(_CODES.get(type(error), Code.CONNECTION_LOST), str(error))
