"""S1 to S3: what very many idle supervised actors cost, against as many tasks and streams that nobody supervises.

Each side runs in processes of its own. S1 is resident memory; S2 is creates a second, where booting is held against
``start_soon`` and starting on request, which waits for the ack, against ``start``; S3 is starting and stopping, each of
many against each of few. The worse way of ours counts.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.result import report

COUNT = 100_000
REPEATS = 5
REFERENCE_OF = {"booted": "task group", "on request": "acknowledged"}
SIDES = (*REFERENCE_OF, *REFERENCE_OF.values())


def measure(side: str, backend: str) -> dict[str, float]:
    command = [sys.executable, "-P", "-m", "benchmarks.idle", side, backend, str(COUNT)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> None:
    for backend in ("asyncio", "trio"):
        sides = (*SIDES, "bare") if backend == "asyncio" else SIDES
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(REPEATS):
            for side in sides:
                runs[side].append(measure(side, backend))

        def median(side: str, what: str, runs: dict[str, list[dict[str, float]]] = runs) -> float:
            return statistics.median(run[what] for run in runs[side])

        size = {side: round(median(side, "bytes")) for side in sides}
        rate = {side: round(median(side, "per_second")) for side in sides}
        growth = {side: round(median(side, "growth"), 2) for side in SIDES}
        sizes = [size[ours] / size[reference] for ours, reference in REFERENCE_OF.items()]
        rates = [rate[ours] / rate[reference] for ours, reference in REFERENCE_OF.items()]
        report(f"S1 {backend}", max(sizes), "at most", 1.2, bytes=size)
        report(f"S2 {backend}", min(rates), "at least", 0.7, per_second=rate)
        report(f"S3 {backend}", max(growth[ours] for ours in REFERENCE_OF), "at most", 1.5, growth=growth)


if __name__ == "__main__":
    main()
