"""M5: calls a second on uvloop, one after another, against a deque and a future on uvloop, where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.m2_call import on_futures, ours
from benchmarks.result import interleaved, report

REPEATS = 9
TARGET = 0.65


def on_uvloop(side: Callable[[], Coroutine[Any, Any, float]]) -> float:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(side())


def main() -> None:
    if importlib.util.find_spec("uvloop") is None:
        print(json.dumps({"name": "M5", "skipped": "uvloop is not installed"}), flush=True)
        return
    medians = interleaved({"ours": lambda: on_uvloop(ours), "ceiling": lambda: on_uvloop(on_futures)}, REPEATS)
    rates = {name: round(rate) for name, rate in medians.items()}
    report("M5", medians["ours"] / medians["ceiling"], "at least", TARGET, per_second=rates)


if __name__ == "__main__":
    main()
