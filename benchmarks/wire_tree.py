"""``python -m benchmarks.wire_tree PATH BACKEND``: a tree with one actor that echoes, and its control socket."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import anyio

from protocol.messages.common import Message, Request
from supervisor import Actor, ChildSpec, Mailbox, SupervisorSpec, on, open_tree
from supervisor.control import ControlSocket


class Echo(Request[bytes], frozen=True):
    """Say it back."""

    body: bytes


class Note(Message, frozen=True):
    """Take it."""

    body: bytes


class Count(Request[int], frozen=True):
    """How many notes were taken."""


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


def spec(path: Path) -> SupervisorSpec:
    """Return the tree that listens at ``path``."""
    control = partial(ControlSocket, path, public={"parrot": (Echo, Note, Count)})
    return SupervisorSpec("root", [ChildSpec("parrot", Parrot), ChildSpec("ControlSocket", control)])


async def main(path: str) -> None:
    async with open_tree(spec(Path(path))):
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], backend=sys.argv[2])
