"""R1: from the crash of an actor to its next incarnation ready, against a loop around a task group of anyio.

Each crash is an exception out of a handler; ready is ``on_start`` of the next incarnation. The reference serves a deque
and an event in a task group per incarnation, catches what comes out of it, and starts anew: no reason, no report.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from benchmarks.result import interleaved, report
from protocol.messages.common import Message
from supervisor import Actor, ChildSpec, SupervisorSpec, on, open_tree

RESTARTS = 2_000
REPEATS = 7
TARGET = 1.5


class Boom(Message, frozen=True):
    """Crash."""


class Stopwatch:
    """Notes how long each restart takes; and when one is over, whoever waits for that."""

    def __init__(self) -> None:
        self.crashed = 0.0
        self.taken: list[float] = []
        self._ready = anyio.Event()

    def crash(self) -> None:
        self.crashed = time.perf_counter()
        raise ValueError("boom")

    def ready(self) -> None:
        if self.crashed:
            self.taken.append(time.perf_counter() - self.crashed)
        self._ready.set()

    async def until_ready(self) -> None:
        await self._ready.wait()
        self._ready = anyio.Event()


class Fragile(Actor):
    """Crashes when it is told to."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    async def on_start(self) -> None:
        self._watch.ready()

    @on(Boom)
    async def _(self, message: Boom) -> None:
        self._watch.crash()


async def ours() -> float:
    watch = Stopwatch()
    spec = SupervisorSpec("root", [ChildSpec("fragile", partial(Fragile, watch))], intensity=RESTARTS + 1)
    async with open_tree(spec) as tree:
        fragile = tree.ref("fragile")
        await watch.until_ready()
        for _ in range(RESTARTS):
            fragile.cast(Boom())
            await watch.until_ready()
    return statistics.median(watch.taken)


async def task_groups() -> float:
    watch = Stopwatch()
    queue: deque[Boom] = deque()
    arrived = anyio.Event()

    async def serve() -> None:
        nonlocal arrived
        watch.ready()
        while True:
            while queue:
                queue.popleft()
                watch.crash()
            arrived = anyio.Event()
            await arrived.wait()

    async def keep() -> None:
        while True:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(serve)
            except* ValueError:
                pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        await watch.until_ready()
        for _ in range(RESTARTS):
            queue.append(Boom())
            arrived.set()
            await watch.until_ready()
        tasks.cancel_scope.cancel()
    return statistics.median(watch.taken)


def main() -> None:
    log = logging.getLogger("supervisor")
    log.addHandler(logging.NullHandler())  # each crash is logged; what it costs to print is the terminal's affair
    log.propagate = False
    for backend in ("asyncio", "trio"):

        def measure(side: Callable[[], Coroutine[Any, Any, float]], backend: str = backend) -> Callable[[], float]:
            return lambda: anyio.run(side, backend=backend)

        medians = interleaved({"ours": measure(ours), "task groups": measure(task_groups)}, REPEATS)
        microseconds = {name: round(value * 1e6, 1) for name, value in medians.items()}
        ratio = medians["ours"] / medians["task groups"]
        report(f"R1 {backend}", ratio, "at most", TARGET, p50_microseconds=microseconds)


if __name__ == "__main__":
    main()
