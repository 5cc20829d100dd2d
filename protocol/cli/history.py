"""``stokehold history``: how each file ended."""

from __future__ import annotations

import argparse

from protocol.cli.folder import when
from protocol.cli.table import LEFT, RIGHT, print_table
from protocol.cli.talk import ask, print_json
from protocol.messages.queue import GetHistory, HistoryEntry


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="at most so many, the newest (1000)")
    parser.add_argument("--outcome", choices=("trained", "failed", "cancelled", "rolled_back"), help="only these")


def run(options: argparse.Namespace) -> int:
    """Print the history, newest first."""
    entries = ask(options, "QueueManager", GetHistory(limit=options.limit, outcome=options.outcome), 30.0)
    if options.json:
        print_json(entries)
        return 0
    if not entries:
        print("nothing has ended yet")
        return 0
    print_table(
        [("finished", LEFT), ("file", LEFT), ("outcome", LEFT), ("samples", RIGHT), ("steps", RIGHT), ("loss", LEFT),
         ("version", RIGHT), ("interrupted", RIGHT), ("id", LEFT)],
        [
            [when(entry.finished_at), entry.file, entry.outcome.replace("_", " "), f"{entry.samples:,}",
             f"{entry.steps:,}", _loss(entry), "" if entry.version is None else str(entry.version),
             f"{entry.interruptions:,}" if entry.interruptions else "", entry.id]
            for entry in entries
        ],
        shrink=1,
    )  # fmt: skip
    return 0


def _loss(entry: HistoryEntry) -> str:
    if entry.first_loss is None or entry.last_loss is None:
        return ""
    return f"{entry.first_loss:.3f} → {entry.last_loss:.3f}"
