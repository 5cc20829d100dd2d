"""A tree of one's own as a program: signals, exit codes, a control socket and metrics come with it.

Run: PYTHONPATH=docs/examples python -P -m supervisor --app own_tree:tree SOCKET PORT
Then: stokehold --socket SOCKET tree
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from supervisor import Actor, BootRefused, ChildSpec, Message, ProcessStart, Request, SupervisorSpec, on
from supervisor.boot import Boot
from supervisor.control import ControlSocket
from supervisor.exporter import MetricsExporter
from supervisor.metrics import TreeMetrics


class Put(Message, frozen=True):
    number: int


class Numbers(Request[list[int]], frozen=True):
    """All that were put."""


class Fail(Message, frozen=True):
    """Crash."""


class Keeper(Actor):
    def __init__(self) -> None:
        self.numbers: list[int] = []

    @on(Put)
    async def _(self, message: Put) -> None:
        self.numbers.append(message.number)
        self.context.publish("numbers", {"event": "put", "number": message.number})

    @on(Numbers)
    async def _(self, message: Numbers) -> list[int]:
        return self.numbers

    @on(Fail)
    async def _(self, message: Fail) -> None:
        raise RuntimeError("asked to")

    def summary(self) -> Mapping[str, object]:
        return {"numbers": len(self.numbers)}


PUBLIC = {"keeper": (Put, Numbers, Fail), "worker": (Put, Numbers, Fail)}


def tree(boot: Boot) -> SupervisorSpec:
    """Application function of ``python -m supervisor``: from the command line's arguments to the tree."""
    if len(boot.arguments) != 2:
        raise BootRefused("wanted: SOCKET PORT", 2)
    socket, port = Path(boot.arguments[0]), int(boot.arguments[1])
    metrics = TreeMetrics("numbers")
    return SupervisorSpec(
        "root",
        [
            ChildSpec("keeper", Keeper),
            ChildSpec("worker", ProcessStart("own_tree:Keeper"), isolation="process"),
            ChildSpec("ControlSocket", lambda: ControlSocket(socket, PUBLIC, topics=["numbers"])),
            ChildSpec("MetricsExporter", lambda: MetricsExporter(metrics, port)),
        ],
    )
