"""The supervision library alone, in a program of your own: a counter that crashes, and is back.

Run: python docs/examples/embed_library.py
"""

from __future__ import annotations

import anyio

from supervisor import Actor, ChildSpec, Message, Request, SupervisorSpec, on, open_tree


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
        counter = tree.ref("counter")  # a name, not an object: it outlives the crash
        counter.cast(Add(10))
        before = await counter.call(Total())
        with tree.stream.subscribe(["lifecycle"]) as lifecycle:
            counter.cast(Add(0))  # the counter crashes, and its supervisor starts a new one
            counter.cast(Add(50))  # waits in the mailbox over the restart
            async for event in lifecycle:
                if event.data["event"] == "started":
                    break
        return [before, await counter.call(Total())]


if __name__ == "__main__":
    print(anyio.run(main))  # [10, 2]; also with backend="trio"
