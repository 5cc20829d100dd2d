"""The supervision library alone, in a program of your own: a counter that crashes, and is back."""

from __future__ import annotations

import anyio

from protocol.messages.common import Message, Request
from supervisor import Actor, ChildSpec, SupervisorSpec, on, open_tree


class Add(Message, frozen=True):
    amount: int


class Total(Request[int], frozen=True):
    """Answered with an int: mypy knows it."""


class Counter(Actor):
    def __init__(self) -> None:
        self.total = 0

    @on(Add)
    async def _(self, message: Add) -> None:
        self.total += 100 // message.amount  # an Add(0) is a crash: nobody catches it here

    @on(Total)
    async def _(self, message: Total) -> int:
        return self.total


async def main() -> list[int]:
    async with open_tree(SupervisorSpec("root", [ChildSpec("counter", Counter)])) as tree:
        counter = tree.ref("counter")
        counter.cast(Add(10))
        before = await counter.call(Total())
        counter.cast(Add(0))  # crashes the counter; its supervisor starts a new one
        counter.cast(Add(50))  # waits in the mailbox over the restart
        return [before, await counter.call(Total())]


if __name__ == "__main__":
    print(anyio.run(main))
