"""The actor that the messaging rows talk to."""

from __future__ import annotations

from protocol.messages.common import Message, Request
from supervisor import Actor, ChildSpec, SupervisorSpec, on


class Put(Message, frozen=True):
    """Something said."""

    number: int


class Get(Request[int], frozen=True):
    """Something asked: how many messages have been handled."""

    number: int


class Counter(Actor):
    """Counts."""

    def __init__(self) -> None:
        self._handled = 0

    @on(Put)
    async def _(self, message: Put) -> None:
        self._handled += 1

    @on(Get)
    async def _(self, message: Get) -> int:
        self._handled += 1
        return self._handled


TREE = SupervisorSpec("root", [ChildSpec("counter", Counter)])
