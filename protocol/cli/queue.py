"""``stokehold queue``: what is queued, and changing it."""

from __future__ import annotations

import argparse

from protocol.cli.commands import subcommands
from protocol.cli.errors_file import bad_lines, error_file
from protocol.cli.folder import when
from protocol.cli.paint import clean, paint, size
from protocol.cli.table import LEFT, RIGHT, print_table
from protocol.cli.talk import UNTIL_DURABLE, ask, connected, home_of, place_of, print_json, say
from protocol.messages.common import PRIORITIES
from protocol.messages.queue import Cancel, GetJob, GetQueue, JobView, Move, Retry


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
        words[name].add_argument("job", metavar="JOB", help="an id, a unique beginning of one, or a file name")
    words["move"].add_argument("--priority", choices=PRIORITIES, required=True)


def run(options: argparse.Namespace) -> int:
    """Do what the word below ``queue`` says."""
    return {"list": _list, "show": _show, "retry": _retry, "cancel": _cancel, "move": _move}[options.action](options)


def _list(options: argparse.Namespace) -> int:
    jobs = ask(options, "QueueManager", GetQueue(), 30.0)
    if options.json:
        print_json(jobs)
        return 0
    if not jobs:
        print("the queue is empty")
        return 0
    print_table(
        [("id", LEFT), ("file", LEFT), ("line", LEFT), ("state", LEFT), ("attempts", RIGHT), ("samples", RIGHT),
         ("size", RIGHT), ("submitted", LEFT), ("last error", LEFT)],
        [
            [job.id, job.file, job.priority, job.state, str(job.attempts or ""), f"{job.samples:,}", size(job.bytes),
             when(job.submitted_at), (job.last_error or "").partition("\n")[0]]
            for job in jobs
        ],
        shrink=8,
    )  # fmt: skip
    return 0


def _show(options: argparse.Namespace) -> int:
    place = place_of(options)
    with connected(place) as client:
        job = client.call("QueueManager", GetJob(job=options.job))
        home = home_of(place, client)
    if options.json:
        print_json(job)
        return 0
    _print(job)
    if job.state == "failed" and (report := error_file(home, job.id, job.file)):
        print(f"  {paint('report', 'dim')}     {report}")
        for line in bad_lines(report):
            print(f"  {line}")
    return 0


def _print(job: JobView) -> None:
    print(paint(clean(job.file), "bold"))
    facts = [
        ("id", job.id),
        ("state", f"{job.state}, {job.priority}"),
        ("attempts", str(job.attempts)),
        ("samples", f"{job.samples:,} in {size(job.bytes)}"),
        ("sha256", job.sha256),
        ("submitted", when(job.submitted_at)),
    ]
    if job.last_error:
        facts.append(("error", clean(job.last_error)))
    for name, text in facts:
        print(f"  {paint(f'{name:<11}', 'dim')}{text}")


def _retry(options: argparse.Namespace) -> int:
    job = ask(options, "QueueManager", Retry(job=options.job), 30.0)
    return _changed(options, job, f"{clean(job.file)} waits in the {job.priority} line again")


def _move(options: argparse.Namespace) -> int:
    job = ask(options, "QueueManager", Move(job=options.job, priority=options.priority), 30.0)
    return _changed(options, job, f"{clean(job.file)} waits at the end of the {job.priority} line")


def _cancel(options: argparse.Namespace) -> int:
    # A running job is let go of at its next optimizer step, with a checkpoint.
    done = ask(options, "QueueManager", Cancel(job=options.job), UNTIL_DURABLE)
    if options.json:
        print_json(done)
    else:
        say(done.detail or "cancelled")
    return 0


def _changed(options: argparse.Namespace, job: JobView, text: str) -> int:
    if options.json:
        print_json(job)
    else:
        say(text)
    return 0
