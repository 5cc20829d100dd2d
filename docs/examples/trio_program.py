"""A tree in a trio program, beside tasks of its own; the tree ends with the block, in order, whatever ends the block.

Run: python docs/examples/trio_program.py
"""

from __future__ import annotations

import trio

from supervisor import Actor, ChildSpec, Message, Request, SupervisorSpec, Tree, on, open_tree


class Count(Message, frozen=True):
    word: str


class Counted(Request[dict[str, int]], frozen=True):
    """Each word, and how often it was counted."""


class Words(Actor):
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @on(Count)
    async def _(self, message: Count) -> None:
        self.counts[message.word] = self.counts.get(message.word, 0) + 1

    @on(Counted)
    async def _(self, message: Counted) -> dict[str, int]:
        return self.counts


async def read(line: str, tree: Tree) -> None:
    """A task of the program's own: it waits for room if the actor cannot keep up."""
    for word in line.split():
        await tree.ref("words").send(Count(word))


async def main() -> dict[str, int]:
    with trio.fail_after(30):
        async with open_tree(SupervisorSpec("root", [ChildSpec("words", Words)])) as tree:
            async with trio.open_nursery() as nursery:
                for line in ("to be or not to be", "that is the question", "to die to sleep"):
                    nursery.start_soon(read, line, tree)
            return await tree.ref("words").call(Counted())


if __name__ == "__main__":
    print(sorted(trio.run(main).items()))
