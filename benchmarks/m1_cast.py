"""M1: casts a second, one producer, one actor, against a deque and a future with nothing around them."""

from __future__ import annotations

import asyncio
import time

from benchmarks.ceilings import FutureBox
from benchmarks.echo import TREE, Get, Put
from benchmarks.result import interleaved, report
from supervisor import MailboxFull, open_tree

MESSAGES = 100_000
REPEATS = 9
TARGET = 0.40


async def ours() -> float:
    async with open_tree(TREE) as tree:
        counter, message = tree.ref("counter"), Put(1)
        begun = time.perf_counter()
        for _ in range(MESSAGES):
            try:
                counter.cast(message)
            except MailboxFull:
                await counter.send(message)
        handled = await counter.call(Get(0))
        taken = time.perf_counter() - begun
    assert handled == MESSAGES + 1
    return MESSAGES / taken


async def ceiling() -> float:
    async with FutureBox() as box:
        message = Put(1)
        begun = time.perf_counter()
        for _ in range(MESSAGES):
            if not box.tell_now(message):
                await box.tell(message)
        await box.ask(message)
        return MESSAGES / (time.perf_counter() - begun)


def main() -> None:
    medians = interleaved({"ours": lambda: asyncio.run(ours()), "ceiling": lambda: asyncio.run(ceiling())}, REPEATS)
    ratio = medians["ours"] / medians["ceiling"]
    report("M1", ratio, "at least", TARGET, per_second={name: round(rate) for name, rate in medians.items()})


if __name__ == "__main__":
    main()
