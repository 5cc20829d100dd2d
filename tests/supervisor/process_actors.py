"""Actors that are run in processes of their own, and what can be said to them. Nothing heavy is imported."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import anyio

from protocol.messages.common import Message, Record, Request
from supervisor import Actor, Down, Mailbox, PartitionRefs, Refused, Reply, on, on_batch, on_deferred, on_down
from supervisor.reasons import Reason, Shutdown


class WhoAreYou(Request[dict[str, int]], frozen=True):
    """Pids of the process, its parent, its session and its group."""


class Add(Request[int], frozen=True):
    left: int
    right: int


class Refuse(Request[None], frozen=True):
    """Refuse to answer."""


class Boom(Message, frozen=True):
    """Crash."""

    text: str = "boom"


class Note(Message, frozen=True):
    """Remember a number."""

    number: int


class NoteAndBoom(Message, frozen=True):
    """Say this to yourself, and crash."""

    note: Note


class BoomCall(Request[None], frozen=True):
    """Crash with the call in hand."""


class Hold(Request[str], frozen=True):
    """Answered when Let comes."""


class Let(Message, frozen=True):
    value: str


class Noted(Request[list[int]], frozen=True):
    """The numbers remembered."""


class Kill(Message, frozen=True):
    """End the own process with this signal."""

    signal: int = 9


class Block(Message, frozen=True):
    """Block the event loop, synchronously."""

    seconds: float


class Sleep(Request[None], frozen=True):
    """Wait, with the event loop free."""

    seconds: float


class StartGrandchild(Request[int], frozen=True):
    """Start a process in a session of its own that outlives its parents if it can; its pid is the answer."""

    forks: bool = False
    """Fork twice, so that its parent is dead at once."""


class Ask(Request[Any], frozen=True):
    """Call Add at another actor and answer with what it says."""

    name: str
    left: int
    right: int


class Tell(Message, frozen=True):
    """Cast a Note to another actor."""

    name: str
    number: int


class Send(Request[None], frozen=True):
    """Send a Note to another actor, waiting for room."""

    name: str
    number: int


class Watch(Message, frozen=True):
    name: str


class LinkTo(Message, frozen=True):
    name: str


class Downs(Request[list[str]], frozen=True):
    """What on_down was told."""


class BeatFor(Message, frozen=True):
    """Beat from a thread of its own for so long, then never again."""

    seconds: float
    limit: float


class Quit(Message, frozen=True):
    """context.stop()."""


class Leave(Message, frozen=True):
    """context.stop() with the reason of one that shuts down."""

    detail: str


class CallYourself(Request[None], frozen=True):
    """Call the own ref out of a handler."""


class Later(Message, frozen=True):
    """Send yourself a Note later, and crash in a spawned task if told to."""

    seconds: float
    note: Note
    crash: bool = False


class Announce(Message, frozen=True):
    """Publish to a topic."""

    topic: str
    text: str


class Point(Record, frozen=True):
    x: int
    y: int


class Route(Request[list[str]], frozen=True):
    """Cast a Note to the partition of each key; the names of those are the answer."""

    id: str
    count: int
    keys: list[str]


class Mirror(Request[Point], frozen=True):
    point: Point


class Batched(Request[int], frozen=True):
    """Answered with the size of the batch that it was in."""


class Worker(Actor):
    """Does as it is told, in any kind of child."""

    mailbox = Mailbox(bound=64)

    def __init__(
        self,
        greeting: str = "",
        stop_for: float = 0.0,
        start_for: float = 0.0,
        fail: str = "",
        stop_fail: str = "",
        decline: bool = False,
        holds: str = "",
    ) -> None:
        self.greeting = greeting
        self.decline = decline
        self.holds = holds
        self.held_name = socket.socket(socket.AF_UNIX) if holds else None
        self.stop_fail = stop_fail
        self.stop_for = stop_for
        self.start_for = start_for
        self.fail = fail
        self.numbers: list[int] = []
        self.downs: list[str] = []
        self.held: list[Reply[str]] = []

    async def on_start(self) -> None:
        if self.fail:
            raise ValueError(self.fail)
        if self.held_name is not None:
            self.held_name.bind(f"\0{self.holds}")  # fails as long as anybody else has it
        self.context.publish("steps", {"begins": self.context.name})
        await anyio.sleep(self.start_for)
        if self.decline:
            self.context.stop()

    async def on_stop(self, reason: Reason) -> None:
        self.context.publish("steps", {"stopped": str(reason)})
        try:
            await anyio.sleep(self.stop_for)
        finally:
            if self.held_name is not None:
                self.held_name.close()
        if self.stop_fail:
            raise OSError(self.stop_fail)

    def summary(self) -> dict[str, object]:
        return {"numbers": len(self.numbers)}

    @on(WhoAreYou)
    async def _(self, message: WhoAreYou) -> dict[str, int]:
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "session": os.getsid(0),
            "threads": threading.active_count(),
            "incarnation": self.context.incarnation,
        }

    @on(Route)
    async def _(self, message: Route) -> list[str]:
        refs = PartitionRefs(self.context.ref, message.id, message.count)
        for number, key in enumerate(message.keys):
            refs.by_key(key).cast(Note(number))
        return [refs.by_key(key).name for key in message.keys]

    @on(Add)
    async def _(self, message: Add) -> int:
        return message.left + message.right

    @on(Mirror)
    async def _(self, message: Mirror) -> Point:
        return Point(message.point.y, message.point.x)

    @on(Refuse)
    async def _(self, message: Refuse) -> None:
        raise Refused("not today", code="later")

    @on(Boom)
    async def _(self, message: Boom) -> None:
        raise ValueError(message.text)

    @on(NoteAndBoom)
    async def _(self, message: NoteAndBoom) -> None:
        self.context.self_ref.cast(message.note)
        raise ValueError("boom after a note")

    @on(BoomCall)
    async def _(self, message: BoomCall) -> None:
        raise ValueError("boom in a call")

    @on_deferred(Hold)
    async def _(self, message: Hold, reply: Reply[str]) -> None:
        self.held.append(reply)

    @on(Let)
    async def _(self, message: Let) -> None:
        for reply in self.held:
            reply.send(message.value)
        self.held.clear()

    @on(Note)
    async def _(self, message: Note) -> None:
        self.numbers.append(message.number)

    @on(Noted)
    async def _(self, message: Noted) -> list[int]:
        return self.numbers

    @on_batch(Batched, limit=16)
    async def _(self, batch: Any) -> None:
        for _, reply in batch:
            reply.send(len(batch))

    @on(Kill)
    async def _(self, message: Kill) -> None:
        os.kill(os.getpid(), message.signal)
        await anyio.sleep(60)

    @on(Block)
    async def _(self, message: Block) -> None:
        time.sleep(message.seconds)

    @on(Sleep)
    async def _(self, message: Sleep) -> None:
        self.context.publish("steps", {"sleeps": message.seconds})
        await anyio.sleep(message.seconds)

    @on(StartGrandchild)
    async def _(self, message: StartGrandchild) -> int:
        code = "import os,signal,sys,time\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
        if message.forks:
            code += "if os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        code += "print(os.getpid(), flush=True)\ntime.sleep(300)\n"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        return int(process.stdout.readline())

    @on(Ask)
    async def _(self, message: Ask) -> Any:
        return await self.context.ref(message.name).call(Add(message.left, message.right), timeout=5)

    @on(Tell)
    async def _(self, message: Tell) -> None:
        self.context.ref(message.name).cast(Note(message.number))

    @on(Send)
    async def _(self, message: Send) -> None:
        await self.context.ref(message.name).send(Note(message.number))

    @on(Watch)
    async def _(self, message: Watch) -> None:
        self.context.monitor(self.context.ref(message.name))

    @on(LinkTo)
    async def _(self, message: LinkTo) -> None:
        self.context.link(self.context.ref(message.name))

    @on_down
    async def _(self, down: Down) -> None:
        self.downs.append(f"{down.name}#{down.incarnation}: {down.reason}")

    @on(Downs)
    async def _(self, message: Downs) -> list[str]:
        return self.downs

    @on(BeatFor)
    async def _(self, message: BeatFor) -> None:
        def beat() -> None:
            end = time.monotonic() + message.seconds
            while time.monotonic() < end:
                self.context.beat("beating", message.limit)
                time.sleep(0.02)

        threading.Thread(target=beat, daemon=True).start()

    @on(Quit)
    async def _(self, message: Quit) -> None:
        self.context.stop()

    @on(Leave)
    async def _(self, message: Leave) -> None:
        self.context.stop(Shutdown(message.detail))

    @on(CallYourself)
    async def _(self, message: CallYourself) -> None:
        await self.context.self_ref.call(CallYourself())

    @on(Later)
    async def _(self, message: Later) -> None:
        if message.crash:
            self.context.spawn(self.crash)
        else:
            self.context.after(message.seconds, message.note)

    async def crash(self) -> None:
        raise ValueError("in a spawned task")

    @on(Announce)
    async def _(self, message: Announce) -> None:
        self.context.publish(message.topic, {"text": message.text, "signal": int(signal.SIGTERM)})
