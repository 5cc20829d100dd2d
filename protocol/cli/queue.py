"""``stokehold queue``: what is queued, and changing it."""

from __future__ import annotations

import argparse
from typing import Any

from protocol.cli.commands import subcommands
from protocol.cli.moment import when
from protocol.cli.paint import clean, paint, size
from protocol.cli.place import find_place
from protocol.cli.plain import print_json, read
from protocol.cli.table import LEFT, RIGHT, print_table

_COLUMNS = (
    ("id", LEFT), ("file", LEFT), ("line", LEFT), ("state", LEFT), ("attempts", RIGHT), ("samples", RIGHT),
    ("size", RIGHT), ("submitted", LEFT), ("last error", LEFT),
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    words = subcommands(
        parser,
        list="all jobs that are not over, in the order in which they will be trained, then the failed ones",
        show="one job",
        retry="queue a failed job again, its attempts forgiven and its progress kept",
        cancel="take a job out; what was trained of it stays trained",
        move="put a waiting job at the end of another line",
    )
    for name in ("show", "retry", "cancel", "move"):
        words[name].add_argument(
            "job", metavar="JOB", type=_job, help="an id, a unique beginning of one, or a file name"
        )
    words["move"].add_argument("--priority", choices=("high", "normal", "low"), required=True)


def _job(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8; say the job's id: stokehold queue list") from None
    return text


def run(options: argparse.Namespace) -> int:
    """Do what the word below ``queue`` says."""
    return {"list": _list, "show": _show, "retry": _change, "cancel": _change, "move": _change}[options.action](options)


def _list(options: argparse.Namespace) -> int:
    jobs = read(find_place(options.home, options.socket), "QueueManager", {"type": "get_queue"}, 30.0)
    if options.json:
        print_json(jobs)
    elif jobs:
        print_table(_COLUMNS, [_row(job) for job in jobs], shrink=8)
    else:
        print("the queue is empty")
    return 0


def _row(job: dict[str, Any]) -> list[str]:
    return [
        job["id"],
        job["file"],
        job["priority"],
        job["state"],
        str(job["attempts"] or ""),
        f"{job['samples']:,}",
        size(job["bytes"]),
        when(job["submitted_at"]),
        _short(job["last_error"] or ""),
    ]


def _short(text: str, limit: int = 72) -> str:
    """Return the beginning of an error; ``queue show`` has all of it."""
    first = text.partition("\n")[0]
    return first if len(first) <= limit else f"{first[: limit - 1]}…"


def _show(options: argparse.Namespace) -> int:
    place = find_place(options.home, options.socket)
    job = read(place, "QueueManager", {"type": "get_job", "job": options.job})
    if options.json:
        print_json(job)
        return 0
    print(paint(clean(job["file"]), "bold"))
    facts = [
        ("id", job["id"]),
        ("state", f"{job['state']}, {job['priority']}"),
        ("attempts", str(job["attempts"])),
        ("samples", f"{job['samples']:,} in {size(job['bytes'])}"),
        ("sha256", job["sha256"]),
        ("submitted", when(job["submitted_at"])),
    ]
    if job["last_error"]:
        facts.append(("error", clean(job["last_error"])))
    if job["state"] == "failed":
        facts += _report(place.home or read(place, "ControlSocket", {"type": "get_status"})["home"], job)
    for name, text in facts:
        print(f"  {paint(f'{name:<11}', 'dim')}{text}")
    if job["state"] == "failed":
        print(f"  {paint('→', 'dim')} stokehold queue retry {job['id']}")
    return 0


def _report(home: str, job: dict[str, Any]) -> list[tuple[str, str]]:
    """Return where the error report of a failed job is, and what it says of the file's lines."""
    from protocol.cli.errors_file import bad_lines, error_file

    report = error_file(home, job["id"], job["file"])
    if report is None:
        return []
    return [("report", str(report)), *([("bad", lines)] if (lines := bad_lines(report)) else [])]


def _change(options: argparse.Namespace) -> int:
    from protocol.cli.talk import UNTIL_DURABLE, ask, print_record, say
    from protocol.messages.common import Done
    from protocol.messages.queue import Cancel, JobView, Move, Retry

    reply: Done | JobView
    if options.action == "cancel":
        # A running job is let go of at its next optimizer step, with a checkpoint.
        reply = ask(options, "QueueManager", Cancel(job=options.job), UNTIL_DURABLE)
        said = reply.detail or "cancelled"
    elif options.action == "retry":
        reply = ask(options, "QueueManager", Retry(job=options.job), 30.0)
        said = f"{clean(reply.file)} waits in the {reply.priority} line again"
    else:
        reply = ask(options, "QueueManager", Move(job=options.job, priority=options.priority), 30.0)
        said = f"{clean(reply.file)} waits at the end of the {reply.priority} line"
    print_record(reply) if options.json else say(said)
    return 0
