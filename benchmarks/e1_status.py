"""E1: ``stokehold status`` against ``python -c pass``, both as whole processes, with an idle daemon."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.command_time import PYTHON_AND_NOTHING, STOKEHOLD, seconds
from benchmarks.result import interleaved, report
from tests.system.harness import daemon, rows

TARGET = 3.0
REPEATS = 40


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder) / "home") as it:
        it.start()
        it.drop("file.jsonl", rows(20))
        it.wait_idle()
        medians = interleaved(
            {
                "python -c pass": seconds(PYTHON_AND_NOTHING, it.home),
                "stokehold status": seconds([STOKEHOLD, "status"], it.home),
            },
            REPEATS,
        )
        it.stop()
    ratio = medians["stokehold status"] / medians["python -c pass"]
    milliseconds = {name: round(value * 1e3, 1) for name, value in medians.items()}
    report("E1", ratio, "at most", TARGET, milliseconds=milliseconds, repeats=REPEATS)


if __name__ == "__main__":
    main()
