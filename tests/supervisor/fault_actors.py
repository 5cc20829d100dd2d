"""An actor that does to its process what must not happen to one: while it starts, in a handler, while it stops."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio

from protocol.messages.common import Message, Request
from supervisor import Actor, ChildSpec, ProcessStart, on
from supervisor.outbox import Outbox
from supervisor.reasons import Reason
from tests.supervisor.process_actors import Note, Worker


class Do(Message, frozen=True):
    """Have it happen now."""

    what: str


class DoCall(Request[int], frozen=True):
    """The same with somebody who waits."""

    what: str


class SayAndDie(Message, frozen=True):
    """Say this to yourself, and be killed."""

    note: Note


class Load(Message, frozen=True):
    """A number with a weight."""

    number: int
    weight: bytes


class Loads(Request[list[int]], frozen=True):
    """The numbers that came."""


class StartDescendant(Request[int], frozen=True):
    """Start a process that would outlive this one; its pid is the answer."""

    how: str


_FOR_EVER = """
import signal, time
for number in (1, 2, 15):
    signal.signal(number, signal.SIG_IGN)
print(flush=True)
time.sleep(300)
"""


class Faulty(Worker):
    """A :class:`Worker` with faults."""

    def __init__(self, at_start: str = "", at_stop: str = "") -> None:
        super().__init__()
        self.at_start = at_start
        self.at_stop = at_stop
        self.loads: list[int] = []

    async def on_start(self) -> None:
        await super().on_start()
        self.context.publish("steps", {"pid": os.getpid(), "host": os.getppid(), "life": self.context.incarnation})
        await self.do(self.at_start)

    async def on_stop(self, reason: Reason) -> None:
        await super().on_stop(reason)
        await self.do(self.at_stop)

    @on(Do)
    async def _(self, message: Do) -> None:
        await self.do(message.what)

    @on(DoCall)
    async def _(self, message: DoCall) -> int:
        await self.do(message.what)
        return 0

    @on(SayAndDie)
    async def _(self, message: SayAndDie) -> None:
        self.context.self_ref.cast(message.note)
        os.kill(os.getpid(), signal.SIGKILL)

    @on(Load)
    async def _(self, message: Load) -> None:
        self.loads.append(message.number)

    @on(Loads)
    async def _(self, message: Loads) -> list[int]:
        return self.loads

    @on(StartDescendant)
    async def _(self, message: StartDescendant) -> int:
        if message.how == "a copy of a process with threads":
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            pid = os.fork()
            if pid == 0:
                os.setsid()
                time.sleep(300)
                os._exit(0)
            return pid
        options: dict[str, dict[str, Any]] = {
            "in a group of its own": {"process_group": 0},
            "in a session of its own": {"start_new_session": True},
        }
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _FOR_EVER],
            stdout=subprocess.PIPE,
            **options[message.how],
        )
        assert process.stdout is not None
        process.stdout.readline()
        return int(process.pid)

    async def do(self, what: str) -> None:
        """Raises nothing: what happens is worse."""
        if what == "sleep":
            self.context.publish("steps", {"sleeps": 60})
            await anyio.sleep(60)
        elif what:
            _FAULTS[what](self)


def faulty(id: str = "Faulty", arguments: Callable[[], dict[str, Any]] = dict, **spec: Any) -> ChildSpec:
    """A :class:`Faulty` in a process of its own."""
    start = ProcessStart(f"{__name__}:Faulty", arguments, preload=(__name__,))
    return ChildSpec(id, start, isolation="process", **spec)


def _exit(actor: Actor) -> None:
    os._exit(3)


def _exit_interpreter(actor: Actor) -> None:
    sys.exit(3)


def _kill(actor: Actor) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crash_interpreter(actor: Actor) -> None:
    faulthandler.disable()  # its report would only be noise here
    os.kill(os.getpid(), signal.SIGSEGV)


def _stop(actor: Actor) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _lock_up(actor: Actor) -> None:
    """The main thread waits for ever in C, and the others run on."""
    held, turns = threading.Lock(), threading.Event()
    held.acquire()

    def run() -> None:
        while True:
            turns.set()
            time.sleep(0.01)

    threading.Thread(target=run, daemon=True).start()
    turns.wait()
    held.acquire()


def _turn_deaf(actor: Actor) -> None:
    """No signal that can be blocked gets through, and no end either."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(300)


def _outbox(actor: Actor) -> Outbox:
    (outbox,) = [one for one in gc.get_objects() if isinstance(one, Outbox)]
    return outbox


def _link(actor: Actor) -> socket.socket:
    sock = _outbox(actor)._socket
    sock.setblocking(True)
    return sock


def _hang_up(actor: Actor) -> None:
    _link(actor).shutdown(socket.SHUT_WR)
    time.sleep(300)


def _garble(actor: Actor) -> None:
    _link(actor).sendall(b"\0\0\0\5hello")
    time.sleep(300)


def _promise_too_much(actor: Actor) -> None:
    _link(actor).sendall(b"\xff\xff\xff\xff")
    time.sleep(300)


def _flood(actor: Actor) -> None:
    """Publish and cast without end, from a thread beside the event loop, as fast as it goes."""

    def run() -> None:
        while True:
            actor.context.publish("noise", {"text": "x" * 1000})
            time.sleep(0)

    threading.Thread(target=run, daemon=True).start()


def _flood_and_block(actor: Actor) -> None:
    while True:
        actor.context.publish("noise", {"text": "x" * 1000})


def _start_thread_that_stays(actor: Actor) -> None:
    threading.Thread(target=threading.Event().wait).start()


_FAULTS: dict[str, Callable[[Actor], None]] = {
    "exit": _exit,
    "sys.exit": _exit_interpreter,
    "kill": _kill,
    "segv": _crash_interpreter,
    "stop": _stop,
    "lock up": _lock_up,
    "deaf": _turn_deaf,
    "hang up": _hang_up,
    "garble": _garble,
    "promise": _promise_too_much,
    "flood": _flood,
    "flood and block": _flood_and_block,
    "thread": _start_thread_that_stays,
}
