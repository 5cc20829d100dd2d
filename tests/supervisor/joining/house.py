"""A tree with a place for a guest and a control socket, and the program of the guest, in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from supervisor import ChildSpec, NoSuchActor, SupervisorSpec, Tree, joinable, open_tree
from supervisor.control import ControlSocket
from supervisor.testing import eventually

ROOT = Path(__file__).parents[3]


def door(path: Path, **public: Any) -> ChildSpec:
    """The control socket of the tree."""
    return ChildSpec("ControlSocket", lambda: ControlSocket(path, public))


@asynccontextmanager
async def tree_at(path: Path, *more: ChildSpec | SupervisorSpec, place: Any = None, **spec: Any) -> AsyncIterator[Tree]:
    """A tree with others, a place that is called Guest, and a control socket."""
    children = [*more, place or joinable("Guest"), door(path)]
    async with open_tree(SupervisorSpec("root", children, **spec)) as tree:
        yield tree


class Program:
    """The guest's program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, within: float = 10.0) -> str:
        """Wait for its end, and return what it printed: why the guest ended."""
        out, err = await anyio.to_thread.run_sync(lambda: self.process.communicate(timeout=within))
        return out + err if self.process.returncode else out.strip()


@contextmanager
def guest_program(
    path: Path, loop: str = "asyncio", name: str = "Guest", restart: str = "transient", **arguments: Any
) -> Iterator[Program]:
    """Run it for the length of the block."""
    words = [sys.executable, "-P", "-m", "tests.supervisor.joining.program", str(path), name, loop, restart]
    process = subprocess.Popen(
        [*words, json.dumps(arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    try:
        yield Program(process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def status(tree: Tree, name: str = "Guest") -> str:
    return tree.introspection.state(name).status


async def until_joined(tree: Tree, incarnation: int = 1, name: str = "Guest", within: float = 20.0) -> None:
    """Wait until this incarnation runs, or a later one."""

    def runs() -> bool:
        try:
            state = tree.introspection.state(name)
        except NoSuchActor:  # its supervisor does not run
            return False
        return state.status == "running" and state.incarnation >= incarnation

    await eventually(runs, within)


async def until_away(tree: Tree, name: str = "Guest", within: float = 10.0) -> None:
    await eventually(lambda: status(tree, name) == "absent", within)
