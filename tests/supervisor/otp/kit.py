"""What the ported cases share: children that end in each of OTP's ways, and what a supervisor says of them."""

from __future__ import annotations

from typing import Literal

import anyio

from protocol.messages.common import Message
from supervisor import Actor, ChildSpec, Reason, Shutdown, Tree, on
from supervisor.testing import EventLog, Gate, GatedActor, settle
from tests.supervisor.helpers import Counter, Fail, StopYourself

How = Literal["normal", "shutdown", "shutdown_detail", "abnormal"]
EVERY_END: tuple[How, ...] = ("normal", "shutdown", "shutdown_detail", "abnormal")
REPORTED = {
    "normal": "normal",
    "shutdown": "shutdown",
    "shutdown_detail": "shutdown: enough",
    "abnormal": "crash: ValueError: asked to",
}
"""How each end reads in a report."""


class ShutDown(Message, frozen=True):
    detail: str = ""


class Child(Counter):
    """Ends in whichever way it is told to."""

    @on(ShutDown)
    async def _(self, message: ShutDown) -> None:
        self.context.stop(Shutdown(message.detail))


class Declining(Actor):
    """Has nothing to do and says so while it starts: what ``ignore`` is in OTP."""

    async def on_start(self) -> None:
        self.context.stop()


class Failing(Actor):
    """Cannot start."""

    async def on_start(self) -> None:
        raise OSError("no start")


class Sleeper(Actor):
    """Takes its time to stop, on the clock of its tree."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def on_stop(self, reason: Reason) -> None:
        await self.context.clock.sleep(self.seconds)


class Naughty(Actor):
    """Does not end when it is told to, nor when it is cancelled, before the test lets it."""

    def __init__(self) -> None:
        self.let_go = anyio.Event()

    async def on_stop(self, reason: Reason) -> None:
        with anyio.CancelScope(shield=True):
            await self.let_go.wait()


def child(id: str, journal: list[str] | None = None, **options: object) -> ChildSpec:
    """A worker that can be told how to end."""
    return ChildSpec(id, lambda: Child(journal), **options)  # type: ignore[arg-type]


def gated(id: str, gate: Gate, **options: object) -> ChildSpec:
    """A worker whose starts are the test's to decide."""
    return ChildSpec(id, lambda: GatedActor(gate), **options)  # type: ignore[arg-type]


def tell_end(tree: Tree, name: str, how: How) -> None:
    """Tell a child to end."""
    message = {"normal": StopYourself(), "shutdown": ShutDown(), "shutdown_detail": ShutDown("enough")}
    tree.ref(name).cast(message.get(how, Fail()))


async def end(tree: Tree, name: str, how: How = "abnormal") -> None:
    """Have a child end, and wait for all that follows."""
    tell_end(tree, name, how)
    await settle()


async def counts(tree: Tree, supervisor: str = "root") -> tuple[int, int, int, int]:
    """Specifications, active children, supervisors, workers."""
    found = await tree.supervisor(supervisor).count_children()
    return found.specs, found.active, found.supervisors, found.workers


async def statuses(tree: Tree, supervisor: str = "root") -> dict[str, str]:
    """What each child is doing, in start order."""
    return {child.id: child.status for child in await tree.supervisor(supervisor).which_children()}


async def lives(tree: Tree, supervisor: str = "root") -> dict[str, int]:
    """Which incarnation each child is in."""
    return {child.id: child.incarnation for child in await tree.supervisor(supervisor).which_children()}


def ends(log: EventLog, name: str) -> list[str | None]:
    """The reasons with which incarnations of a child have ended so far."""
    return [entry["reason"] for entry in log.read(event="exited", actor=name)]
