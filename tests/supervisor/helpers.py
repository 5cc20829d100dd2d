"""Messages and actors that the tests of the library share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import anyio

from protocol.messages.common import Message, Request
from supervisor import (
    Actor,
    ChildSpec,
    Down,
    Mailbox,
    Reason,
    Refused,
    Reply,
    SupervisorSpec,
    on,
    on_batch,
    on_deferred,
    on_down,
)


class Put(Message, frozen=True):
    value: int


class GetAll(Request[list[int]], frozen=True):
    pass


class Fail(Message, frozen=True):
    text: str = "asked to"


class FailCall(Request[int], frozen=True):
    text: str = "asked to"


class Refuse(Request[int], frozen=True):
    pass


class Incarnation(Request[int], frozen=True):
    pass


class StopYourself(Message, frozen=True):
    pass


class Hold(Request[int], frozen=True):
    """Answered by the handler only when the test lets it."""


class Defer(Request[int], frozen=True):
    pass


class Batched(Request[int], frozen=True):
    value: int


class Counter(Actor):
    """Remembers numbers, and does on request whatever an actor can do wrong."""

    def __init__(self, journal: list[str] | None = None) -> None:
        self.values: list[int] = []
        self.journal = [] if journal is None else journal
        self.hold = anyio.Event()
        self.tokens: list[Reply[int]] = []
        self.batches: list[int] = []
        self.downs: list[Down] = []

    async def on_start(self) -> None:
        self.journal.append(f"start {self.context.name}")

    async def on_stop(self, reason: Reason) -> None:
        self.journal.append(f"stop {self.context.name} {type(reason).__name__}")

    @on(Put)
    async def _(self, message: Put) -> None:
        self.values.append(message.value)

    @on(GetAll)
    async def _(self, message: GetAll) -> list[int]:
        return self.values

    @on(Fail)
    async def _(self, message: Fail) -> None:
        raise ValueError(message.text)

    @on(FailCall)
    async def _(self, message: FailCall) -> int:
        raise ValueError(message.text)

    @on(Refuse)
    async def _(self, message: Refuse) -> int:
        raise Refused("not today", code="closed")

    @on(Incarnation)
    async def _(self, message: Incarnation) -> int:
        return self.context.incarnation

    @on(StopYourself)
    async def _(self, message: StopYourself) -> None:
        self.context.stop()

    @on(Hold)
    async def _(self, message: Hold) -> int:
        await self.hold.wait()
        return 1

    @on_deferred(Defer)
    async def _(self, message: Defer, reply: Reply[int]) -> None:
        self.tokens.append(reply)

    @on_batch(Batched, limit=3)
    async def _(self, batch: Sequence[tuple[Batched, Reply[int]]]) -> None:
        self.batches.append(len(batch))
        for message, reply in batch:
            reply.send(message.value)

    @on_down
    async def _(self, down: Down) -> None:
        self.downs.append(down)


class Narrow(Counter):
    """The same with room for two messages."""

    mailbox: ClassVar[Mailbox] = Mailbox(bound=2, overflow="wait")


class Rejecting(Counter):
    mailbox: ClassVar[Mailbox] = Mailbox(bound=2, overflow="reject")


class DroppingOldest(Counter):
    mailbox: ClassVar[Mailbox] = Mailbox(bound=2, overflow="drop_oldest")


class DroppingNewest(Counter):
    mailbox: ClassVar[Mailbox] = Mailbox(bound=2, overflow="drop_newest")


def one(actor: Actor, **options: object) -> SupervisorSpec:
    """A root with a single child ``a`` that is always this object (so tests can look inside)."""
    return SupervisorSpec("root", [ChildSpec("a", lambda: actor, **options)])  # type: ignore[arg-type]
