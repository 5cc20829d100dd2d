"""Typed conversation with the daemon: connecting, asking, waiting; and its failures, told to people."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from protocol.cli.failure import no_daemon, refused
from protocol.cli.place import Place, find_place
from protocol.cli.plain import print_json
from protocol.client import Client, Failed, NoDaemon
from protocol.home import Home
from protocol.messages.common import Request
from protocol.messages.system import GetStatus
from protocol.wire import Code

R = TypeVar("R")

PATIENT = 20 * 86400.0
"""Seconds for a request whose answer comes when something is over: longer than anything takes."""
UNTIL_DURABLE = 600.0
"""Seconds for a request that waits for the next optimizer step and its checkpoint."""
BACK_WITHIN = 10.0
"""A daemon that was there and does not answer for so many seconds is gone; ControlSocket restarts faster."""

_PASSING = {Code.CONNECTION_LOST, Code.RESTARTING, Code.TIMED_OUT, Code.MAILBOX_FULL, Code.BUSY, Code.STOPPING}


def place_of(options: argparse.Namespace) -> Place:
    """Return the home and socket that the options name."""
    return find_place(options.home, options.socket)


@contextmanager
def connected(place: Place) -> Iterator[Client]:
    """Connect, and tell what goes wrong meanwhile in the words of the command line.

    Raises:
        CommandFailed: no daemon there, or a failure that the block did not handle.
    """
    try:
        with Client.connect(place.socket) as client:
            yield client
    except NoDaemon as error:
        raise no_daemon(place) from error
    except Failed as error:
        raise refused(error, place) from error


def ask(options: argparse.Namespace, to: str, message: Request[R], timeout: float = 5.0) -> R:
    """Send one request to an actor and return its reply."""
    with connected(place_of(options)) as client:
        return client.call(to, message, timeout)


def wait_for(place: Place, to: str, message: Request[R]) -> R:
    """Return the reply to a request that only waits for something, however long it takes.

    Asks again when the connection or the actor restarts; gives up when the daemon stays away.
    """
    missed_since: float | None = None
    while True:
        try:
            with Client.connect(place.socket) as client:
                missed_since = None
                return client.call(to, message, PATIENT)
        except NoDaemon as error:
            missed_since = missed_since or time.monotonic()
            if time.monotonic() - missed_since > BACK_WITHIN:
                raise no_daemon(place) from error
        except Failed as error:
            if error.code not in _PASSING:
                raise refused(error, place) from error
        time.sleep(0.2)


def home_of(place: Place, client: Client) -> Home:
    """Return the home, from the daemon itself if only its socket is known."""
    return Home(Path(place.home or client.call("ControlSocket", GetStatus()).home))


def print_record(value: Any) -> None:
    """Print a record, or a list of them, as JSON."""
    print_json(msgspec.to_builtins(value))


def say(text: str) -> None:
    """Tell a person what was done, on stderr: it is not data."""
    print(text, file=sys.stderr)
