"""``stokehold pause``, ``resume`` and ``skip``: what opens and shuts the gate between the queue and the trainer."""

from __future__ import annotations

import argparse

from protocol.cli.talk import UNTIL_DURABLE, ask, print_record, say
from protocol.messages.common import Done, Request
from protocol.messages.queue import Pause, Resume, Skip


def arguments(parser: argparse.ArgumentParser) -> None:
    if parser.prog.endswith(" pause"):
        parser.add_argument("--release", action="store_true", help="give the device back too: the model is unloaded")


def run(options: argparse.Namespace) -> int:
    """Say it to QueueManager, and wait until it is durable."""
    messages: dict[str, tuple[Request[Done], str]] = {
        "pause": (Pause(release=getattr(options, "release", False)), "paused; go on with: stokehold resume"),
        "resume": (Resume(), "resumed"),
        "skip": (Skip(), "skipped: the file waits in the low line, its progress kept"),
    }
    message, text = messages[options.command]
    done = ask(options, "QueueManager", message, UNTIL_DURABLE)
    if options.json:
        print_record(done)
    else:
        say(done.detail or text)
    return 0
