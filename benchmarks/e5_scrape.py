"""E5: the 99th percentile of a ``/metrics`` scrape while the training process stands still (SIGSTOP) in mid-training.

The reference is a constant, 50 ms. Each scrape is a connection of its own, as Prometheus's first is.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.result import report
from tests.system.harness import daemon, rows

LIMIT = 0.050
REPEATS = 5
SCRAPES = 300


def trainer_pid(tree: dict[str, Any]) -> int:
    """Return the pid of TrainerActor in what ``tree --json`` prints."""
    nodes = [tree]
    for node in nodes:
        if node["id"] == "TrainerActor":
            return int(node["pid"])
        nodes += node["children"]
    raise LookupError("no TrainerActor in the tree")


def scrape(port: int) -> float:
    """Return the seconds that one scrape took."""
    begun = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200 and b"stokehold_state" in body
    return time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder) / "home", {"http": {"port": 0}}) as it:
        it.start()
        it.drop("file.jsonl", rows(20_000))
        port = it.wait_step(5)["http"]["port"]
        trainer = trainer_pid(it.json("tree"))
        os.kill(trainer, signal.SIGSTOP)
        scrape(port)
        p99s, medians = [], []
        for _ in range(REPEATS):
            taken = [scrape(port) for _ in range(SCRAPES)]
            p99s.append(statistics.quantiles(taken, n=100)[98])
            medians.append(statistics.median(taken))
        os.kill(trainer, signal.SIGCONT)
        it.stop()
    p99 = statistics.median(p99s)
    report(
        "E5",
        p99 / LIMIT,
        "at most",
        1.0,
        p99_milliseconds=round(p99 * 1e3, 2),
        median_milliseconds=round(statistics.median(medians) * 1e3, 2),
        scrapes=SCRAPES,
        repeats=REPEATS,
    )


if __name__ == "__main__":
    main()
