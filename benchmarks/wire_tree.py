"""``python -m benchmarks.wire_tree PATH BACKEND``: a tree whose one actor echoes, behind a socket server of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio

from protocol.handler import Answer, Body, Events, Peer, Refusal
from protocol.messages.common import Message, Request
from protocol.server import serve
from supervisor import Actor, ChildSpec, Mailbox, MailboxFull, Pending, SupervisorSpec, Tree, on, open_tree


class Echo(Request[bytes], frozen=True):
    """Say it back."""

    body: bytes


class Note(Message, frozen=True):
    """Take it."""

    body: bytes


class Count(Request[int], frozen=True):
    """How many notes were taken."""


ASKED = Echo | Count


class Parrot(Actor):
    """Answers with what it was told."""

    mailbox = Mailbox(bound=1 << 16)  # a sender that need not wait for answers is ahead by what the socket holds

    def __init__(self) -> None:
        self._notes = 0

    @on(Echo)
    async def _(self, message: Echo) -> bytes:
        return message.body

    @on(Note)
    async def _(self, message: Note) -> None:
        self._notes += 1

    @on(Count)
    async def _(self, message: Count) -> int:
        return self._notes


class Passage:
    """From the wire to the actors of a tree, by name."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        def pass_on(done: Pending[bytes] | Pending[int]) -> None:
            if done.error is None:
                answer.reply(done.result())
            else:
                answer.fail("handler_failed", str(done.error))

        request: Echo | Count = body.decode(ASKED)
        pending = self._tree.ref(to).request(request, timeout=timeout)
        pending.on_done(pass_on)
        return pending.cancel

    def cast(self, to: str, body: Body, peer: Peer) -> None:
        try:
            self._tree.ref(to).cast(body.decode(Note))
        except MailboxFull as error:
            raise Refusal("mailbox_full", str(error)) from error

    def subscribe(self, topics: Sequence[str]) -> Events:
        raise Refusal("unknown_topic", "there are none")


async def main(path: str) -> None:
    async with (
        open_tree(SupervisorSpec("root", [ChildSpec("parrot", Parrot)])) as tree,
        anyio.create_task_group() as tasks,
    ):
        await tasks.start(partial(serve, Path(path), Passage(tree)))
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], backend=sys.argv[2])
