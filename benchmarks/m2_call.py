"""M2 and M3: calls a second, one after another, against a deque and a future (asyncio) or an ``anyio.Event`` (trio)."""

from __future__ import annotations

import asyncio
import time

import anyio

from benchmarks.ceilings import EventBox, FutureBox
from benchmarks.echo import TREE, Get
from benchmarks.result import interleaved, report
from supervisor import open_tree

CALLS = 20_000
REPEATS = 9


async def ours() -> float:
    async with open_tree(TREE) as tree:
        counter, request = tree.ref("counter"), Get(1)
        begun = time.perf_counter()
        for _ in range(CALLS):
            await counter.call(request)
        return CALLS / (time.perf_counter() - begun)


async def on_futures() -> float:
    async with FutureBox() as box:
        request = Get(1)
        begun = time.perf_counter()
        for _ in range(CALLS):
            await box.ask(request)
        return CALLS / (time.perf_counter() - begun)


async def on_events() -> float:
    box, request = EventBox(), Get(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(box.serve)
        begun = time.perf_counter()
        for _ in range(CALLS):
            await box.ask(request)
        taken = time.perf_counter() - begun
        tasks.cancel_scope.cancel()
    return CALLS / taken


def main() -> None:
    medians = interleaved(
        {
            "ours": lambda: asyncio.run(ours()),
            "ceiling": lambda: asyncio.run(on_futures()),
            "ours on trio": lambda: anyio.run(ours, backend="trio"),
            "ceiling on trio": lambda: anyio.run(on_events, backend="trio"),
        },
        REPEATS,
    )
    rates = {name: round(rate) for name, rate in medians.items()}
    report("M2", medians["ours"] / medians["ceiling"], "at least", 0.65, per_second=rates)
    report("M3", medians["ours on trio"] / medians["ceiling on trio"], "at least", 0.85, per_second=rates)


if __name__ == "__main__":
    main()
