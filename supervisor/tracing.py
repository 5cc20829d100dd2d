"""The trace of one incarnation: each message that it takes in hand, and how each call is answered (``sys:trace/2``).

It goes to the topic ``trace/NAME`` of the tree's event stream, and only while somebody subscribes to that. Messages are
named, not shown: what is in them may be large, or nobody's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.reply import Pending

if TYPE_CHECKING:
    from protocol.messages.common import Message
    from supervisor.context import Context
    from supervisor.monitor import Down

PREFIX = "trace/"


def topic_of(name: str) -> str:
    """Return the topic on which the actor of this name is traced."""
    return PREFIX + name


class Tracer:
    """Publishes what one incarnation does. ``call`` numbers its calls from 1, so that an answer finds its question."""

    __slots__ = ("_calls", "_context", "_topic")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._topic = topic_of(context.name)
        self._calls = 0

    def letter(self, letter: Message | Pending[Any]) -> None:
        """The actor is about to handle this letter."""
        if not isinstance(letter, Pending):
            self._tell("cast", message=type(letter).__name__)
        elif not letter.done:
            self._calls += 1
            number, began = self._calls, self._context.clock.monotonic()
            self._tell("call", message=type(letter.message).__name__, call=number)
            letter.on_done(lambda done: self._answered(number, began, done))

    def down(self, down: Down) -> None:
        """The actor is about to handle the end of a peer."""
        self._tell("down", message="Down", peer=down.name)

    def _answered(self, number: int, began: float, done: Pending[Any]) -> None:
        seconds = round(self._context.clock.monotonic() - began, 6)
        facts = {"message": type(done.message).__name__, "call": number, "seconds": seconds}
        if done.error is None:
            self._tell("reply", **facts, reply=type(done.result()).__name__)
        else:
            self._tell("failure", **facts, error=type(done.error).__name__)

    def _tell(self, event: str, **facts: object) -> None:
        self._context.publish(self._topic, {"event": event, "actor": self._context.name, **facts})
