"""W1 to W3: messages over a Unix socket to an actor and back, against asyncio protocols that only echo.

Each side has a server process of its own. 90-byte bodies; W1 is one call at a time, W2 100 at once, W3 casts.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio

from benchmarks.result import interleaved, report
from benchmarks.wire_reference import Asker, Said
from benchmarks.wire_tree import Count, Echo, Note
from protocol.aclient import connect

BODY = b"x" * 90
ONE_BY_ONE = 2_000
AT_ONCE = 100
EACH = 100
CASTS = 50_000
REPEATS = 5


@contextmanager
def serving(*words: str) -> Iterator[None]:
    command = [sys.executable, "-P", "-m", *words]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield
        server.kill()


async def calls(path: str) -> float:
    """Return the median seconds of one call."""
    async with connect(path) as client:
        taken = []
        for _ in range(ONE_BY_ONE):
            begun = time.perf_counter()
            await client.call("parrot", Echo(BODY))
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


async def questions(path: str) -> float:
    """Return the median seconds of one question of the reference."""
    _, asker = await asyncio.get_running_loop().create_unix_connection(Asker, path)
    taken = []
    for _ in range(ONE_BY_ONE):
        begun = time.perf_counter()
        await asker.ask(BODY)
        taken.append(time.perf_counter() - begun)
    asker.close()
    return statistics.median(taken)


async def calls_at_once(path: str) -> float:
    """Return calls a second."""

    async def caller() -> None:
        for _ in range(EACH):
            await client.call("parrot", Echo(BODY), timeout=60)

    async with connect(path) as client:
        begun = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(caller)
        return AT_ONCE * EACH / (time.perf_counter() - begun)


async def questions_at_once(path: str) -> float:
    """Return questions a second."""

    async def caller() -> None:
        for _ in range(EACH):
            await asker.ask(BODY)

    _, asker = await asyncio.get_running_loop().create_unix_connection(Asker, path)
    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    taken = time.perf_counter() - begun
    asker.close()
    return AT_ONCE * EACH / taken


async def casts(path: str) -> float:
    """Return casts a second, all of them handled."""
    async with connect(path) as client:
        before = await client.call("parrot", Count())
        begun = time.perf_counter()
        for number in range(CASTS):
            await client.cast("parrot", Note(BODY))
            if not number % 64:
                await asyncio.sleep(0)
        handled = await client.call("parrot", Count(), timeout=60) - before
        taken = time.perf_counter() - begun
    assert handled == CASTS, f"{handled} of {CASTS} casts were handled"
    return CASTS / taken


async def remarks(path: str) -> float:
    """Return one-way messages a second of the reference, all of them read."""
    _, asker = await asyncio.get_running_loop().create_unix_connection(Asker, path)
    begun = time.perf_counter()
    for number in range(CASTS):
        asker.say(Said(1, False, BODY))
        if not number % 64:
            await asyncio.sleep(0)
    await asker.ask(BODY)
    taken = time.perf_counter() - begun
    asker.close()
    return CASTS / taken


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here, there = f"{folder}/ours", f"{folder}/reference"
        with serving("benchmarks.wire_tree", here, "asyncio"), serving("benchmarks.wire_reference", there):
            measures: dict[str, Callable[[], float]] = {
                name: partial(lambda function, path: asyncio.run(function(path)), function, path)
                for name, function, path in (
                    ("call", calls, here),
                    ("question", questions, there),
                    ("calls", calls_at_once, here),
                    ("questions", questions_at_once, there),
                    ("casts", casts, here),
                    ("remarks", remarks, there),
                )
            }
            medians = interleaved(measures, REPEATS)
    microseconds = {name: round(medians[name] * 1e6, 1) for name in ("call", "question")}
    rates = {name: round(medians[name]) for name in ("calls", "questions", "casts", "remarks")}
    report("W1", medians["call"] / medians["question"], "at most", 1.3, p50_microseconds=microseconds)
    report("W2", medians["calls"] / medians["questions"], "at least", 0.6, per_second=rates)
    report("W3", medians["casts"] / medians["remarks"], "at least", 0.5, per_second=rates)


if __name__ == "__main__":
    main()
