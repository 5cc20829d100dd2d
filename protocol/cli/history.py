"""``stokehold history``: how each file ended."""

from __future__ import annotations

import argparse
from typing import Any

from protocol.cli.commands import at_least
from protocol.cli.moment import when
from protocol.cli.place import find_place
from protocol.cli.plain import print_json, read
from protocol.cli.table import LEFT, RIGHT, print_table

_COLUMNS = (
    ("finished", LEFT), ("file", LEFT), ("outcome", LEFT), ("samples", RIGHT), ("steps", RIGHT), ("loss", LEFT),
    ("version", RIGHT), ("interrupted", RIGHT), ("id", LEFT),
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=at_least(0), default=1000, metavar="N", help="at most so many, the newest (1000)"
    )
    parser.add_argument("--outcome", choices=("trained", "failed", "cancelled", "rolled_back"), help="only these")


def run(options: argparse.Namespace) -> int:
    """Print the history, newest first."""
    wanted = {"type": "get_history", "limit": options.limit, "outcome": options.outcome}
    entries = read(find_place(options.home, options.socket), "QueueManager", wanted, 30.0)
    if options.json:
        print_json(entries)
    elif entries:
        print_table(_COLUMNS, [_row(entry) for entry in entries], shrink=1)
    else:
        print("nothing has ended yet")
    return 0


def _row(entry: dict[str, Any]) -> list[str]:
    first, last = entry["first_loss"], entry["last_loss"]
    return [
        when(entry["finished_at"]),
        entry["file"],
        entry["outcome"].replace("_", " "),
        f"{entry['samples']:,}",
        f"{entry['steps']:,}",
        "" if first is None or last is None else f"{first:.3f} → {last:.3f}",
        "" if entry["version"] is None else str(entry["version"]),
        f"{entry['interruptions']:,}" if entry["interruptions"] else "",
        entry["id"],
    ]
