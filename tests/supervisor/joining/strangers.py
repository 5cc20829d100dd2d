"""A guest that tries what one may not do. In a module of its own: messages are found by the names of their modules."""

from __future__ import annotations

import os
import signal
import time

from protocol.messages.common import Message
from supervisor import on
from tests.supervisor.process_actors import Worker


class Shout(Message, frozen=True):
    """Ask that the whole tree be stopped."""


class ForkAndHold(Message, frozen=True):
    """Fork a process that holds everything open that this one has, and is gone after some seconds."""


class Jot(Message, frozen=True):
    """Write a number down, where it outlasts the process."""

    path: str
    number: int


class Stranger(Worker):
    """A Worker, and more."""

    @on(Shout)
    async def _(self, message: Shout) -> None:
        self.context.request_shutdown("by a guest")

    @on(Jot)
    async def _(self, message: Jot) -> None:
        with open(message.path, "a") as file:
            file.write(f"{message.number}\n")

    @on(ForkAndHold)
    async def _(self, message: ForkAndHold) -> None:
        if os.fork() == 0:
            os.closerange(0, 3)  # nobody waits for it at the other end of a pipe
            signal.alarm(4)
            time.sleep(60)
            os._exit(0)
