"""E2: every other reading command against ``python -c pass``; the slowest of them counts.

Left out are those that read to do work: ``plan`` and ``preview`` load a model, ``checkpoints verify`` hashes what it
finds, ``doctor`` looks at processes twice, a while apart; ``events`` does not end.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.command_time import PYTHON_AND_NOTHING, STOKEHOLD, seconds
from benchmarks.result import interleaved, report
from tests.system.harness import daemon, rows

COMMANDS = (
    "tree", "queue list", "queue show bad.jsonl", "history", "models list", "models show", "checkpoints list",
    "consolidate", "config show", "config check", "logs", "metrics", "protocol schema",
)  # fmt: skip
TARGET = 6.0
REPEATS = 15


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder) / "home", {"http": {"port": 0}}) as it:
        it.start()
        it.drop("file.jsonl", rows(20))
        it.drop("bad.jsonl", "not JSON\n")
        it.wait_idle()
        it.home.settings.write_text(it.config.read_text())  # config check without a name looks here
        measures = {"python -c pass": seconds(PYTHON_AND_NOTHING, it.home)}
        measures |= {command: seconds([STOKEHOLD, *command.split()], it.home) for command in COMMANDS}
        medians = interleaved(measures, REPEATS)
        it.stop()
    reference = medians.pop("python -c pass")
    slowest = max(medians, key=lambda name: medians[name])
    ratios = {name: round(value / reference, 2) for name, value in medians.items()}
    report(
        "E2",
        medians[slowest] / reference,
        "at most",
        TARGET,
        slowest=slowest,
        ratios=ratios,
        reference_milliseconds=round(reference * 1e3, 1),
        repeats=REPEATS,
    )


if __name__ == "__main__":
    main()
