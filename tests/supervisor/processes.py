"""Helpers of the tests that start and kill real processes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from supervisor import CallFailed, ChildSpec, ProcessStart, Ref, SupervisorSpec, Tree, open_tree
from tests.supervisor.process_actors import WhoAreYou, Worker

WORKER = "tests.supervisor.process_actors:Worker"


def process_child(id: str = "Worker", arguments: dict[str, Any] | None = None, **spec: Any) -> ChildSpec:
    """A :class:`Worker` in a process of its own."""
    start = ProcessStart(WORKER, lambda: arguments or {}, preload=("tests.supervisor.process_actors",))
    return ChildSpec(id, spec.pop("start", start), isolation="process", **spec)


def task_child(id: str, **arguments: Any) -> ChildSpec:
    """A :class:`Worker` that shares the loop of the test."""
    return ChildSpec(id, lambda: Worker(**arguments))


@asynccontextmanager
async def tree_of(*children: ChildSpec, intensity: int = 20, **spec: Any) -> AsyncIterator[Tree]:
    """A tree with these children that forgives many restarts."""
    async with open_tree(SupervisorSpec("root", children, intensity=intensity, **spec)) as tree:
        yield tree


async def until(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Wait until the condition holds; return how long that took. Fails after so many seconds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not so within {seconds:g} s"
        await anyio.sleep(0.01)
    return time.monotonic() - begun


def until_sync(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Like :func:`until`, outside of an event loop."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not so within {seconds:g} s"
        time.sleep(0.01)
    return time.monotonic() - begun


async def next_life(ref: Ref, before: int, seconds: float = 10.0) -> dict[str, int]:
    """Wait until an incarnation after number ``before`` answers, and return who it is."""
    with anyio.fail_after(seconds):
        while True:
            try:
                who = await ref.call(WhoAreYou())
            except CallFailed:
                who = {"incarnation": 0}
            if who["incarnation"] > before:
                return who
            await anyio.sleep(0.005)


def runs(pid: int) -> bool:
    """Whether a process of this number runs. A zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def with_text(needle: str) -> Iterator[int]:
    """Pids of all processes with this text in their command line or environment."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as command, open(f"/proc/{name}/environ", "rb") as environment:
                    found = needle.encode() in command.read() + environment.read()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if found and runs(int(name)):
                yield int(name)
