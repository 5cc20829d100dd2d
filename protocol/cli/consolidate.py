"""``stokehold consolidate``: when the night's work runs next, or run it now."""

from __future__ import annotations

import argparse
from typing import Any

from protocol.cli.moment import when
from protocol.cli.paint import paint
from protocol.cli.place import find_place
from protocol.cli.plain import print_json, read


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--now", action="store_true", help="whatever the date; waits, and exits 0 promoted or refused")


def run(options: argparse.Namespace) -> int:
    """Show the schedule, or consolidate and wait for the outcome."""
    if options.now:
        return _now(options)
    view = read(find_place(options.home, options.socket), "Consolidator", {"type": "get_consolidator"})
    print_json(view) if options.json else _print(view)
    return 0


def _print(view: dict[str, Any]) -> None:
    print("running now" if view["running"] else f"next: {when(view['next_at']) or 'not scheduled'}")
    if view["last_at"] is not None:
        print(f"last: {when(view['last_at'])}, {view['last_outcome']}: {view['last_reason'] or ''}")
    else:
        print("last: never")


def _now(options: argparse.Namespace) -> int:
    from protocol.cli.talk import PATIENT, ask, print_record, say
    from protocol.messages.consolidator import ConsolidateNow

    if not options.json:
        say("consolidating; this waits until nothing is queued or running")
    result = ask(options, "Consolidator", ConsolidateNow(), PATIENT)
    if options.json:
        print_record(result)
    else:
        made = f" as version {result.version}" if result.version is not None else ""
        print(f"{paint(result.outcome, 'green' if result.outcome == 'promoted' else 'yellow')}{made}: {result.reason}")
    return 0
