"""R2: from kill -9 of a process child to the first answer of the next one, against a forkserver of multiprocessing.

The reference has the same modules preloaded, and its parent does nothing but wait for the end of the child in the
kernel, start the next, and ask it; its child starts the same event loop and answers from it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import statistics
import time

import anyio

from benchmarks.echo import Get
from benchmarks.forked import answer
from benchmarks.result import interleaved, report
from supervisor import ChildSpec, ProcessStart, SupervisorSpec, open_tree

RESTARTS = 20
REPEATS = 7
TARGET = 1.3


async def ours() -> float:
    start = ProcessStart("benchmarks.forked:Answering", preload=("benchmarks.forked",))
    spec = SupervisorSpec("root", [ChildSpec("child", start, isolation="process")], intensity=RESTARTS + 1)
    taken = []
    async with open_tree(spec) as tree:
        child, root = tree.ref("child"), tree.supervisor("root")
        await child.call(Get(0))
        for number in range(1, RESTARTS + 1):
            [before] = await root.which_children()
            assert before.pid is not None
            begun = time.perf_counter()
            os.kill(before.pid, signal.SIGKILL)
            with tree.stream.subscribe(["lifecycle"]) as news:
                async for event in news:
                    if event.data["event"] == "started":
                        break
            assert await child.call(Get(number)) == number
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def forkserver(backend: str) -> float:
    context = multiprocessing.get_context("forkserver")
    taken = []

    def start() -> multiprocessing.process.BaseProcess:
        nonlocal link
        link, theirs = context.Pipe()
        process = context.Process(target=answer, args=(theirs, backend), daemon=True)
        process.start()
        theirs.close()
        return process

    link, _ = context.Pipe()
    process = start()
    link.send(0)
    link.recv()
    for number in range(1, RESTARTS + 1):
        assert process.pid is not None
        begun = time.perf_counter()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        link.close()
        process = start()
        link.send(number)
        assert link.recv() == number
        taken.append(time.perf_counter() - begun)
    process.kill()
    process.join()
    return statistics.median(taken)


def main() -> None:
    log = logging.getLogger("supervisor")
    log.addHandler(logging.NullHandler())  # each end is logged; what it costs to print is the terminal's affair
    log.propagate = False
    # As the child of ours has it: the event loop's own modules are there before the fork.
    preload = ["benchmarks.forked", "asyncio", "anyio._backends._asyncio", "trio", "anyio._backends._trio"]
    multiprocessing.set_forkserver_preload(preload)
    for backend in ("asyncio", "trio"):
        medians = interleaved(
            {
                "ours": lambda backend=backend: anyio.run(ours, backend=backend),
                "forkserver": lambda backend=backend: forkserver(backend),
            },
            REPEATS,
        )
        milliseconds = {name: round(value * 1e3, 2) for name, value in medians.items()}
        ratio = medians["ours"] / medians["forkserver"]
        report(f"R2 {backend}", ratio, "at most", TARGET, p50_milliseconds=milliseconds)


if __name__ == "__main__":
    main()
