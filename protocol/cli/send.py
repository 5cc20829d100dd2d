"""``stokehold send``: say a public message to an actor, as JSON, and print what it answers."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from protocol.cli.failure import MISUSE, CommandFailed, no_daemon, refused
from protocol.cli.place import find_place
from protocol.cli.plain import print_json
from protocol.quick import Failed, NoDaemon, ask, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("to", metavar="ACTOR", help="its name in: stokehold tree")
    parser.add_argument(
        "message", metavar="MESSAGE", help='such as \'{"type": "get_queue"}\' (see: stokehold protocol schema)'
    )
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="for the answer; default: 5")


def run(options: argparse.Namespace) -> int:
    """Send it; print the answer of a request. A message that is not answered is cast."""
    body = _message(options.message)
    place = find_place(options.home, options.socket)
    try:
        answer = ask(place.socket, options.to, body, options.timeout)
    except NoDaemon as error:
        raise no_daemon(place) from error
    except Failed as error:
        if not (isinstance(error.detail, dict) and error.detail.get("cast")):
            raise refused(error, place) from error
        try:
            tell(place.socket, options.to, body, options.timeout)
        except Failed as failed:
            raise refused(failed, place) from failed
        print(f"{options.to} has it; it is not answered", file=sys.stderr)
        return 0
    print_json(answer)
    return 0


def _message(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise CommandFailed(f"that is no JSON: {error}", _EXAMPLE, MISUSE) from error
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        raise CommandFailed("a message is a JSON object with a type", _EXAMPLE, MISUSE)
    return body


_EXAMPLE = 'for example: \'{"type": "get_queue"}\'; all of the daemon: stokehold protocol schema'


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 366 * 86400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0 and up to a year")
    return seconds
