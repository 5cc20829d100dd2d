"""A handler whose answers can be foretold from what was said on a connection: for random conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from protocol.handler import Answer, Body, Peer, Refusal
from protocol.messages.common import Message, TailEvent
from protocol.wire import Code
from tests.protocol.house import WHEN, Echo, Hold, Note, Refuse, Stream

TOPIC = "numbers"


class Release(Message, frozen=True):
    """Answer all that is held under this name, with the name."""

    name: str


class Publish(Message, frozen=True):
    """Tell all subscribers this number."""

    number: int


class Desk:
    """Answers to ``Desk``; everything else is an unknown actor. It keeps nothing of what is over."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.held: dict[str, list[Answer]] = {}
        self.streams: list[Stream] = []

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        message = self._decode(to, body, Echo | Hold | Refuse)
        self.begun[type(message).__name__] += 1
        match message:
            case Echo(text):
                answer.reply(text)
            case Hold(name):
                self.held.setdefault(name, []).append(answer)
                return partial(self._let_go, name, answer)
            case Refuse():
                raise Refusal("not_now", "not while it rains", {"until": "noon"})
        return lambda: None

    def cast(self, to: str, body: Body, peer: Peer) -> None:
        match self._decode(to, body, Note | Release | Publish):
            case Release(name):
                for answer in self.held.pop(name, ()):
                    answer.reply(name)
            case Publish(number):
                self.streams = [stream for stream in self.streams if not stream.closed]
                for stream in self.streams:
                    stream.put(TailEvent(topic=TOPIC, at=WHEN, data={"number": number}))

    def subscribe(self, topics: Sequence[str]) -> Stream:
        if set(topics) != {TOPIC}:
            raise Refusal(Code.UNKNOWN_TOPIC, f"there is only the topic {TOPIC}")
        self.streams.append(Stream())
        return self.streams[-1]

    def join(self, name: str, peer: Peer) -> NoReturn:
        raise Refusal(Code.NOT_JOINABLE, f"{name} is served here")

    def _let_go(self, name: str, answer: Answer) -> None:
        left = [each for each in self.held.get(name, ()) if each is not answer]
        if left:
            self.held[name] = left
        else:
            self.held.pop(name, None)

    def _decode(self, to: str, body: Body, kinds: Any) -> Any:
        if to != "Desk":
            raise Refusal(Code.UNKNOWN_ACTOR, f"there is no actor {to}")
        return body.decode(kinds)
