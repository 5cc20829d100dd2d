"""Many actors at rest, in a process of their own: ``python -m benchmarks.idle SIDE BACKEND COUNT`` prints their cost.

Supervised actors, booted by their supervisor or started one after another on request; and, as the reference of each,
tasks of one task group with a memory stream each, started all at once or after the acknowledgement of the one before.
``bare`` is an asyncio task with a deque and a future.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream

from supervisor import Actor, ChildSpec, SupervisorSpec, open_tree

BOUND = 1024


class Idle(Actor):
    """Waits for messages, and knows none."""


def resident() -> int:
    """Return the bytes of memory that this process has in use."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Meter:
    """Measures from its making to :meth:`read`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._resident = resident()
        self._begun = time.perf_counter()
        self.creating = 0.0
        self.bytes_each = 0.0

    async def read(self) -> None:
        """Everybody is there; their memory counts once they are at rest."""
        self.creating = time.perf_counter() - self._begun
        await anyio.wait_all_tasks_blocked()
        self.bytes_each = (resident() - self._resident) / self._count

    def result(self) -> dict[str, float]:
        """Everybody has been stopped by now."""
        return {"bytes": self.bytes_each, "per_second": self._count / self.creating}


async def booted(count: int) -> Meter:
    meter = Meter(count)
    async with open_tree(SupervisorSpec("root", [ChildSpec(f"actor {n}", Idle) for n in range(count)])):
        await meter.read()
    return meter


async def on_request(count: int) -> Meter:
    async with open_tree(SupervisorSpec("root")) as tree:
        root = tree.supervisor("root")
        meter = Meter(count)
        for number in range(count):
            await root.start_child(ChildSpec(f"actor {number}", Idle))
        await meter.read()
    return meter


async def task_group(count: int) -> Meter:
    async def serve(receive: MemoryObjectReceiveStream[Any]) -> None:
        started.append(None)
        while True:  # an ``async for`` would cost each of them another coroutine
            await receive.receive()

    async with anyio.create_task_group() as tasks:
        meter = Meter(count)
        started: list[None] = []
        inboxes = []
        for _ in range(count):
            inbox, receive = anyio.create_memory_object_stream[Any](BOUND)
            inboxes.append(inbox)
            tasks.start_soon(serve, receive)
        while len(started) < count:
            await checkpoint()
        await meter.read()
        tasks.cancel_scope.cancel()
    for inbox in inboxes:
        inbox.close()
    return meter


async def acknowledged(count: int) -> Meter:
    async def serve(receive: MemoryObjectReceiveStream[Any], *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await receive.receive()

    async with anyio.create_task_group() as tasks:
        meter = Meter(count)
        inboxes = []
        for _ in range(count):
            inbox, receive = anyio.create_memory_object_stream[Any](BOUND)
            inboxes.append(inbox)
            await tasks.start(serve, receive)
        await meter.read()
        tasks.cancel_scope.cancel()
    for inbox in inboxes:
        inbox.close()
    return meter


async def bare(count: int) -> Meter:
    loop = asyncio.get_running_loop()

    async def serve(queue: deque[Any]) -> None:
        while True:
            while queue:
                queue.popleft()
            await loop.create_future()

    meter = Meter(count)
    inboxes: list[deque[Any]] = []
    tasks = []
    for _ in range(count):
        inboxes.append(deque())
        tasks.append(asyncio.create_task(serve(inboxes[-1])))
    await asyncio.sleep(0)
    await meter.read()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return meter


SIDES: dict[str, Callable[[int], Awaitable[Meter]]] = {
    "booted": booted,
    "on request": on_request,
    "task group": task_group,
    "acknowledged": acknowledged,
    "bare": bare,
}


def main() -> None:
    side, backend, count = SIDES[sys.argv[1]], sys.argv[2], int(sys.argv[3])
    each = []
    for number in (1_000, 1_000, 1_000, count):  # the first warms up
        begun = time.perf_counter()
        meter = anyio.run(side, number, backend=backend)
        each.append((time.perf_counter() - begun) / number)
    print(json.dumps({**meter.result(), "growth": each[3] / statistics.median(each[1:3]), "each": each[3]}))


if __name__ == "__main__":
    main()
