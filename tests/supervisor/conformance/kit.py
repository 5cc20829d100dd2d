"""What the cases share: children of either kind, plans for their starts, and what was told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import anyio

from supervisor import CallFailed, ChildSpec, ProcessStart, Ref, Tree
from supervisor.testing import EventLog
from tests.supervisor.process_actors import Boom, Downs, Leave, Quit, Worker
from tests.supervisor.processes import WORKER

How = Literal["normal", "shutdown", "crash"]
REASONS = {"normal": "normal", "shutdown": "shutdown: enough", "crash": "crash: ValueError: boom"}
"""How each end reads in a report."""


class Plan:
    """The arguments of the next starts of a child, in order; where none is left it starts with the usual ones."""

    def __init__(self, *starts: dict[str, Any]) -> None:
        self.starts = list(starts)
        self.usual: dict[str, Any] = {}
        self.tried = 0

    def __call__(self) -> dict[str, Any]:
        self.tried += 1
        return self.starts.pop(0) if self.starts else dict(self.usual)


class Kind:
    """Makes children that are tasks of this program, or processes of their own."""

    def __init__(self, isolation: Literal["task", "process"]) -> None:
        self.isolation = isolation

    @property
    def is_process(self) -> bool:
        return self.isolation == "process"

    def child(self, id: str = "Worker", arguments: Plan | dict[str, Any] | None = None, **spec: Any) -> ChildSpec:
        """A :class:`Worker`."""
        plan = arguments if isinstance(arguments, Plan) else Plan(*[arguments or {}] * 100)
        if self.is_process:
            start = ProcessStart(WORKER, plan, preload=("tests.supervisor.process_actors",))
            return ChildSpec(id, start, isolation="process", **spec)
        return ChildSpec(id, lambda: Worker(**plan()), **spec)

    def children(self, *ids: str, **spec: Any) -> list[ChildSpec]:
        return [self.child(id, **spec) for id in ids]


def end(tree: Tree, name: str, how: How = "crash") -> None:
    """Have a child end by itself."""
    tree.ref(name).cast({"normal": Quit(), "shutdown": Leave("enough"), "crash": Boom()}[how])


def told(log: EventLog, *names: str) -> list[str]:
    """Who started and who had ended, in the order in which it was; of these children, or of all but the root."""
    entries = [entry for entry in log.read() if entry.get("event") in ("started", "exited")]
    return [
        f"{entry['event']} {entry['actor']}"
        for entry in entries
        if (entry["actor"] in names if names else entry["actor"] != "root")
    ]


def started(names: Iterable[str]) -> list[str]:
    return [f"started {name}" for name in names]


def exited(names: Iterable[str]) -> list[str]:
    return [f"exited {name}" for name in names]


async def lives(tree: Tree, supervisor: str = "root") -> dict[str, int]:
    """Which incarnation each child is in."""
    return {child.id: child.incarnation for child in await tree.supervisor(supervisor).which_children()}


async def statuses(tree: Tree, supervisor: str = "root") -> dict[str, str]:
    """What each child is doing, in start order."""
    return {child.id: child.status for child in await tree.supervisor(supervisor).which_children()}


async def downs_of(watcher: Ref, count: int) -> list[str]:
    """What an actor was told of the ends of others, once it was told so often."""
    with anyio.fail_after(5):
        while len(downs := await watcher.call(Downs())) < count:
            await anyio.sleep(0.005)
    return downs


async def failure_of(call: Callable[[], Any]) -> type[CallFailed] | None:
    """The class of the error that a call ends with."""
    try:
        await call()
    except CallFailed as error:
        return type(error)
    return None
