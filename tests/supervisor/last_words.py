"""A process that says much, and dies before it can have been heard."""

from __future__ import annotations

import os
import signal

import anyio

from protocol.messages.common import Message, Request
from supervisor import Actor, ChildSpec, ProcessStart, on

COUNT = 12
"""Words: more of them than are read at once, and fewer than a socket holds."""


class Word(Message, frozen=True):
    number: int
    weight: bytes


class Words(Request[list[int]], frozen=True):
    """The numbers that came."""


class SpeakAndDie(Message, frozen=True):
    """As soon as this file is there, say all words to the listener, send one more, and be killed."""

    when: str


class Listener(Actor):
    def __init__(self) -> None:
        self.numbers: list[int] = []

    @on(Word)
    async def _(self, message: Word) -> None:
        self.numbers.append(message.number)

    @on(Words)
    async def _(self, message: Words) -> list[int]:
        return self.numbers


class Speaker(Actor):
    """Speaks when it is told, or at its second start, and is killed after its ack."""

    def __init__(self, when: str) -> None:
        self.when = when

    async def on_start(self) -> None:
        self.context.publish("steps", {"life": self.context.incarnation, "pid": os.getpid()})
        if self.when and self.context.incarnation == 2:
            await self.speak(self.when)
            self.context.spawn(self.die)

    @on(SpeakAndDie)
    async def _(self, message: SpeakAndDie) -> None:
        self.context.publish("steps", {"speaks": True, "pid": os.getpid()})
        await self.speak(message.when)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.context.ref("Listener").send, Word(COUNT, b""))
            tasks.start_soon(self.die)

    async def speak(self, when: str) -> None:
        while not os.path.exists(when):
            await anyio.sleep(0.005)
        for number in range(COUNT):
            self.context.ref("Listener").cast(Word(number, bytes(10_000)))

    async def die(self) -> None:
        await anyio.sleep(0.05)  # the words are said at once, and the ack in the meantime
        os.kill(os.getpid(), signal.SIGKILL)


def speaker(when: str = "") -> ChildSpec:
    start = ProcessStart(f"{__name__}:Speaker", lambda: {"when": when}, preload=(__name__,))
    return ChildSpec("Speaker", start, isolation="process")
