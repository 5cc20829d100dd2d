"""The actor of R2, and what answers in its place in the reference: both in a process of their own."""

from __future__ import annotations

from multiprocessing.connection import Connection

import anyio

from benchmarks.echo import Get
from supervisor import Actor, on


class Answering(Actor):
    """Answers."""

    @on(Get)
    async def _(self, message: Get) -> int:
        return message.number


async def _answer(link: Connection) -> None:
    while True:
        await anyio.wait_readable(link.fileno())
        link.send(link.recv())


def answer(link: Connection, backend: str) -> None:
    """Start the event loop, and send back what comes."""
    anyio.run(_answer, link, backend=backend)
