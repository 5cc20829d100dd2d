"""``stokehold submit``: queue files, and return when the daemon has accepted them.

Exit 0: all were accepted (with ``--wait``: trained). 1: one was refused, or failed. 3: no daemon, and nothing was
copied; or the daemon went away, and what was copied waits in the inbox for its next start.
"""

from __future__ import annotations

import argparse
import stat
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from protocol.cli.errors_file import bad_lines, error_file
from protocol.cli.failure import FAILED, NO_DAEMON, CommandFailed
from protocol.cli.inbox_copy import put
from protocol.cli.paint import clean, count, paint
from protocol.cli.place import Place
from protocol.cli.talk import connected, home_of, place_of, print_record, say, wait_for
from protocol.home import Home
from protocol.ids import new_ids
from protocol.inbox_names import UNFINISHED
from protocol.messages.common import PRIORITIES
from protocol.messages.queue import Accepted, HistoryEntry, WaitAccepted, WaitFinished


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSONL: text, prompt and completion, or messages")
    parser.add_argument("--priority", choices=PRIORITIES, default="normal", help="which line (normal)")
    parser.add_argument("--wait", action="store_true", help="return when they are trained, failed or cancelled")


def run(options: argparse.Namespace) -> int:
    """Copy the files into the inbox, and wait for the daemon's word on each, in the order given."""
    sources = [Path(name) for name in options.files]
    for source in sources:
        _check(source)
    place = place_of(options)
    with connected(place) as client:
        home = home_of(place, client)
    ids = list(islice(new_ids(), len(sources)))
    for source, id in zip(sources, ids, strict=True):
        _put(source, home, id, options.priority)
    results = [_result(source, place, home, id, options) for source, id in zip(sources, ids, strict=True)]
    if options.json:
        print_record([result for result, _ in results])
    return 0 if all(good for _, good in results) else FAILED


def _check(source: Path) -> None:
    """Refuse what cannot be a data file, before anything is copied."""
    try:
        mode = source.stat().st_mode
        if stat.S_ISREG(mode):
            source.open("rb").close()
    except OSError as error:
        raise CommandFailed(
            f"{source}: {error.strerror}", "nothing was submitted; correct the name and say it again"
        ) from error
    if not stat.S_ISREG(mode):
        kind = "is a folder" if stat.S_ISDIR(mode) else "is not a file"
        raise CommandFailed(f"{source} {kind}", "nothing was submitted; name the files themselves")
    if source.name.endswith(UNFINISHED):
        raise CommandFailed(
            f"{source}: the inbox leaves names alone that end in {', '.join(UNFINISHED)}",
            "nothing was submitted; rename the file",
        )


def _put(source: Path, home: Home, id: str, priority: Any) -> None:
    try:
        put(source, home.inbox, id, priority)
    except OSError as error:
        raise CommandFailed(
            f"cannot copy {source} into {home.inbox}: {error.strerror}",
            "files named before it are submitted; see: stokehold queue list",
        ) from error


def _result(
    source: Path, place: Place, home: Home, id: str, options: argparse.Namespace
) -> tuple[dict[str, Any], bool]:
    """Return what became of one file, as JSON tells it, and whether that is what the user wanted."""
    try:
        accepted = wait_for(place, "QueueManager", WaitAccepted(submit_id=id))
        if accepted.state == "failed":
            return _refused(source, home, accepted, quiet=options.json), False
        if not options.json:
            print(accepted.id, flush=True)
        result: dict[str, Any] = msgspec.to_builtins(accepted)
        if not options.wait:
            return result, True
        entry = wait_for(place, "QueueManager", WaitFinished(job=accepted.id))
    except CommandFailed as failure:
        if failure.code == NO_DAEMON:
            failure.next = (
                f"what was submitted is safe in the home and goes on when the daemon starts again\n{failure.next}"
            )
        raise
    if not options.json:
        say(_told(entry))
        if entry.outcome == "failed":
            _say_lines(home, entry.id, entry.file)
    return result | {"finished": msgspec.to_builtins(entry)}, entry.outcome == "trained"


def _refused(source: Path, home: Home, accepted: Accepted, *, quiet: bool) -> dict[str, Any]:
    report = error_file(home.root, accepted.id, accepted.file)
    if not quiet:
        say(
            f"{paint('refused:', 'red', stream=sys.stderr)} {source}: {clean(accepted.reason or 'no reason was given')}"
        )
        _say_lines(home, accepted.id, accepted.file)
    result: dict[str, Any] = msgspec.to_builtins(accepted)
    return result | {"report": str(report) if report else None}


def _say_lines(home: Home, job: str, file: str) -> None:
    if report := error_file(home.root, job, file):
        if lines := bad_lines(report):
            say(f"  {lines}")
        say(f"  {paint('→', 'dim', stream=sys.stderr)} all of it: {report}")


def _told(entry: HistoryEntry) -> str:
    loss = (
        ""
        if entry.first_loss is None or entry.last_loss is None
        else f", loss {entry.first_loss:.3f} → {entry.last_loss:.3f}"
    )
    return (
        f"{clean(entry.file)}: {entry.outcome}, {count(entry.samples, 'sample')} in {count(entry.steps, 'step')}{loss}"
    )
