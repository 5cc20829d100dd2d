"""M4: calls a second, one after another, against Pykka and Thespian's simple system, where they are installed.

``pip install -e .[bench]`` installs them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Callable

from benchmarks.m2_call import ours
from benchmarks.result import interleaved, report

CALLS = 5_000
REPEATS = 9
TARGETS = {"pykka": 10.0, "thespian": 1.2}


def pykka() -> float:
    from pykka import ThreadingActor

    class Counter(ThreadingActor):
        def __init__(self) -> None:
            super().__init__()
            self._handled = 0

        def on_receive(self, message: object) -> int:
            self._handled += 1
            return self._handled

    counter = Counter.start()
    begun = time.perf_counter()
    for _ in range(CALLS):
        counter.ask(1)
    taken = time.perf_counter() - begun
    counter.stop()
    return CALLS / taken


def thespian() -> float:
    from thespian.actors import ActorSystem

    from benchmarks.thespian_counter import Counter

    system = ActorSystem("simpleSystemBase")
    counter = system.createActor(Counter)
    begun = time.perf_counter()
    for _ in range(CALLS):
        system.ask(counter, 1, 5.0)
    taken = time.perf_counter() - begun
    system.shutdown()
    return CALLS / taken


def main() -> None:
    others: dict[str, Callable[[], float]] = {"pykka": pykka, "thespian": thespian}
    for missing in [name for name in others if importlib.util.find_spec(name) is None]:
        del others[missing]
        print(json.dumps({"name": f"M4 {missing}", "skipped": f"{missing} is not installed"}), flush=True)
    if not others:
        return
    medians = interleaved({"ours": lambda: asyncio.run(ours()), **others}, REPEATS)
    rates = {name: round(rate) for name, rate in medians.items()}
    for name in others:
        report(f"M4 {name}", medians["ours"] / medians[name], "at least", TARGETS[name], per_second=rates)


if __name__ == "__main__":
    main()
