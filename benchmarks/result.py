"""What a benchmark found: a ratio, held against its target."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any, Literal


def report(name: str, ratio: float, bound: Literal["at most", "at least"], target: float, **detail: Any) -> None:
    """Print the result as one line of JSON."""
    met = ratio <= target if bound == "at most" else ratio >= target
    line = {"name": name, "ratio": round(ratio, 3), "target": target, "met": met, "detail": {"bound": bound, **detail}}
    print(json.dumps(line, ensure_ascii=False), flush=True)


def interleaved(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Take each measure once a round, in turn, and return the median of each. A first round warms up, uncounted."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for round_number in range(repeats + 1):
        for name, measure in measures.items():
            value = measure()
            if round_number:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}
