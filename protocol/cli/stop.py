"""``stokehold stop``: end the daemon, and return when it is gone.

Gone means that its process has ended, and that nobody holds the home's lock on its behalf. If this command is killed
while it waits, the daemon still stops.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from protocol.cli.failure import CommandFailed
from protocol.cli.talk import connected, home_of, place_of, print_record, say
from protocol.client import Client, Failed, NoDaemon
from protocol.home import Home
from protocol.messages.common import Done
from protocol.messages.system import Stop
from protocol.wire import Code

ORPHANS_WITHIN = 10.0
"""Seconds that processes left behind may hold the lock after the daemon's end; its host kills them within two."""
POLL = 0.05
ASK_AGAIN = 0.2

Mode = Literal["gently", "after_file", "now"]
SAID: dict[Mode, str] = {
    "gently": "stopping at the next optimizer step, with a checkpoint",
    "after_file": "stopping when the file that is running is trained; till then: stokehold status",
    "now": "stopping at once",
}

SIGNALS = {"gently": 1, "now": 2}
"""How many times SIGTERM says the same."""


def arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--after-file", action="store_true", help="when the file that is running is trained")
    how.add_argument("--now", action="store_true", help="at once, without a checkpoint; nothing is lost but steps")


def run(options: argparse.Namespace) -> int:
    """Ask SignalHandler to stop the daemon, and wait."""
    mode: Mode = "now" if options.now else "after_file" if options.after_file else "gently"
    place = place_of(options)
    with connected(place) as client:
        pid = client.server.pid
        home = home_of(place, client)
        with _watched(client.server_pid) as process:
            done = _ask(client, mode, process)
            client.close()
            if not options.json:
                say(done.detail or SAID[mode])
            if process is not None:
                select.select([process], [], [])
            _wait_for_lock(home, pid, math.inf if process is None else ORPHANS_WITHIN)
    if options.json:
        print_record(done)
    else:
        say("stopped")
    return 0


def _ask(client: Client, mode: Mode, process: int | None) -> Done:
    """Say it. A daemon that goes before it has answered has done what it was told.

    SignalHandler is the last to start. A daemon that has none yet is sent the signal of the same meaning, which it
    obeys from its first line on; where there is no such signal, or no such process to be seen, it is asked again.
    """
    while True:
        try:
            return client.call("SignalHandler", Stop(mode=mode), 30.0)
        except NoDaemon:
            return Done()
        except Failed as error:
            if error.code in (Code.CONNECTION_LOST, Code.STOPPING):
                return Done()
            if error.code not in (Code.NOT_RUNNING, Code.RESTARTING):
                raise
        if process is not None and mode != "after_file":
            for _ in range(SIGNALS[mode]):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGTERM)
            return Done()
        time.sleep(ASK_AGAIN)


@contextmanager
def _watched(pid: int) -> Iterator[int | None]:
    """Hold on to a process before it is told to end: the descriptor becomes readable when it has, whatever bears its
    pid then. None for pid 0, which cannot be seen from here: then the lock alone tells."""
    try:
        descriptor = os.pidfd_open(pid) if pid else None
    except ProcessLookupError:
        descriptor = None
    if descriptor is None:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for_lock(home: Home, pid: int, within: float) -> None:
    """Wait until nobody holds the lock that the daemon of this pid took."""
    deadline = time.monotonic() + within
    while _held(home, pid):
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"the daemon (PID {pid}) has ended, but something that it left behind still holds {home.lock}",
                "find it with: stokehold doctor",
            )
        time.sleep(POLL)


def _held(home: Home, pid: int) -> bool:
    try:
        with home.lock.open("rb") as file:
            with suppress(ValueError, TypeError, KeyError):
                if json.loads(file.read())["pid"] != pid:
                    return False  # a new daemon has the home already; its lock is not to be tried
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
