"""Applications for the binary: each function takes the boot and returns a tree.

The first argument is a file in which the application reports, one JSON object a line, what the tests want to know.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

import anyio

from protocol.messages.common import Message
from supervisor import Actor, BootRefused, ChildSpec, SpecError, SupervisorSpec, on
from supervisor.boot import Boot, Signals
from supervisor.reasons import Reason
from tests.supervisor import fault_actors
from tests.supervisor.fault_actors import Do, StartDescendant
from tests.supervisor.process_actors import BeatFor, Block, StartGrandchild, WhoAreYou
from tests.supervisor.processes import process_child


def report(path: str, **facts: Any) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(facts) + "\n")


class Reporter(Actor):
    """Starts last, and reports the pids of everything."""

    def __init__(self, path: str, block: bool = False) -> None:
        self.path = path
        self.block = block

    async def on_start(self) -> None:
        worker = self.context.ref("Worker")
        who = await worker.call(WhoAreYou(), timeout=20)
        grandchildren = [await worker.call(StartGrandchild(forks), timeout=20) for forks in (False, True)]
        worker.cast(BeatFor(60, 60))
        if self.block:
            worker.cast(Block(600))
        report(self.path, up=True, worker=who["pid"], host=who["parent"], grandchildren=grandchildren)

    async def on_stop(self, reason: Reason) -> None:
        report(self.path, stopped=str(reason))


def plain(boot: Boot) -> SupervisorSpec:
    """Does not ask for the signals."""
    path, *rest = boot.arguments
    reporter = ChildSpec("Reporter", lambda: Reporter(path, block="block" in rest))
    return SupervisorSpec("root", [process_child(), reporter])


class Accuser(Actor):
    """Starts last: gives each child its descendants and its fault, and reports who all there are."""

    def __init__(self, path: str, names: list[str], ready: bool) -> None:
        self.path = path
        self.names = names
        self.ready = ready

    async def on_start(self) -> None:
        pids: set[int] = set()
        for name in self.names:
            ref = self.context.ref(name)
            who = await ref.call(WhoAreYou(), timeout=20)
            kinds = ("in a group of its own", "in a session of its own", "a copy of a process with threads")
            pids |= {who["pid"], who["parent"]}
            for kind in kinds:
                pids.add(await ref.call(StartDescendant(kind), timeout=20))
            if name == self.names[0]:
                stopped = who["pid"]
        self.context.ref(self.names[0]).cast(Do("stop"))
        self.context.ref(self.names[1]).cast(Do("lock up"))
        report(self.path, stopped=stopped, pids=sorted(pids))
        if not self.ready:
            await anyio.sleep(600)


def faulty(boot: Boot) -> SupervisorSpec:
    """Processes under a strategy, one stopped and one locked up; the last child starts for ever unless it is to run."""
    path, strategy, phase = boot.arguments
    names = ["first", "second", "third"]
    group = SupervisorSpec("group", [fault_actors.faulty(name) for name in names], strategy=strategy)  # type: ignore[arg-type]
    accuser = ChildSpec("Accuser", lambda: Accuser(path, names, phase == "running"), start_timeout=600.0)
    return SupervisorSpec("root", [group, accuser])


class Handler(Actor):
    """Takes the signals and writes them down; the first stop signal stops the tree with exit code 7."""

    def __init__(self, path: str, signals: Signals) -> None:
        self.path = path
        self.signals = signals

    async def on_start(self) -> None:
        self.context.spawn(self.receive)
        report(self.path, up=True)

    async def receive(self) -> None:
        async for number in self.signals:
            report(self.path, signal=number)
            if number in (signal.SIGTERM, signal.SIGINT):
                self.context.request_shutdown("asked", 7)


def handling(boot: Boot) -> SupervisorSpec:
    """Asks for the signals."""
    signals = boot.signals
    return SupervisorSpec("root", [ChildSpec("Handler", lambda: Handler(boot.arguments[0], signals))])


class Stubborn(Actor):
    """Does not stop; waits, or blocks the loop of the whole daemon, in ``on_start`` or in ``on_stop``."""

    def __init__(self, path: str, where: str, how: str) -> None:
        self.path = path
        self.where = where
        self.how = how

    async def hang(self) -> None:
        report(self.path, up=True)
        if self.how == "block":
            time.sleep(600)
        with anyio.CancelScope(shield=self.how == "shield"):
            await anyio.sleep(600)

    async def on_start(self) -> None:
        if self.where == "start":
            await self.hang()
        report(self.path, up=True)

    async def on_stop(self, reason: Reason) -> None:
        if self.where == "stop":
            await self.hang()


def stubborn(boot: Boot) -> SupervisorSpec:
    """Arguments: file, ``start`` or ``stop``, ``sleep``, ``shield`` or ``block``, seconds of the root deadline."""
    path, where, how, deadline = boot.arguments
    boot.set_root_deadline(float(deadline))
    hanging = ChildSpec("Stubborn", lambda: Stubborn(path, where, how), shutdown="infinity", start_timeout=600.0)
    return SupervisorSpec("root", [process_child(), hanging])


class Shutdown(Message, frozen=True):
    pass


class Quitter(Actor):
    """Requests the shutdown of the tree by itself."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code

    async def on_start(self) -> None:
        self.context.after(0.05, Shutdown())

    @on(Shutdown)
    async def _(self, message: Shutdown) -> None:
        self.context.request_shutdown("enough", self.exit_code)


def quitting(boot: Boot) -> SupervisorSpec:
    """Ends by itself with the exit code given."""
    return SupervisorSpec("root", [ChildSpec("Quitter", lambda: Quitter(int(boot.arguments[0])))])


def quitting_stubbornly(boot: Boot) -> SupervisorSpec:
    """Ends by itself, and is stuck in that."""
    path = boot.arguments[0]
    boot.set_root_deadline(0.5)
    stuck = ChildSpec("Stubborn", lambda: Stubborn(path, "stop", "sleep"), shutdown="infinity")
    return SupervisorSpec("root", [stuck, ChildSpec("Quitter", lambda: Quitter(0))])


class Refusing(Actor):
    async def on_start(self) -> None:
        raise BootRefused("Another daemon is running\n(PID 42)", 1)


def refusing(boot: Boot) -> SupervisorSpec:
    """Refuses the boot: from an actor, from the function itself, or by a tree that makes no sense."""
    match boot.arguments:
        case ["actor"]:
            return SupervisorSpec("root", [ChildSpec("Refusing", Refusing)])
        case ["function"]:
            raise BootRefused("the settings are wrong", 78)
        case ["spec"]:
            return SupervisorSpec("root", [ChildSpec("Twice", Refusing), ChildSpec("Twice", Refusing)])
        case _:
            raise SpecError("no such case")


def crashing(boot: Boot) -> SupervisorSpec:
    """Gives up at once: a permanent child that crashes, and no restart allowed."""

    class Crashing(Actor):
        async def on_start(self) -> None:
            self.context.spawn(self.crash)

        async def crash(self) -> None:
            raise RuntimeError("over board")

    return SupervisorSpec("root", [ChildSpec("Crashing", Crashing)], intensity=0)


class Ticker(Actor):
    """Reports the number of threads and the environment, for the tests of the notify socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def on_start(self) -> None:
        environment: Mapping[str, str] = os.environ
        names = sorted(name for name in environment if name.startswith(("NOTIFY", "WATCHDOG")))
        report(self.path, up=True, environment=names, threads=[thread.name for thread in threading.enumerate()])


def ticking(boot: Boot) -> SupervisorSpec:
    """Does nothing, for long."""
    return SupervisorSpec("root", [ChildSpec("Ticker", lambda: Ticker(boot.arguments[0]))])
