"""``stokehold events``: what happened of late, as far as the control socket remembers it; with ``-f`` what happens now.

The newest of each topic are remembered, since the control socket was started; the daemon's ``stokehold logs`` goes
further back. With ``-f`` it waits for the daemon to come back, when that ends, and goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from protocol.cli.failure import no_daemon, refused
from protocol.cli.log_line import fields
from protocol.cli.paint import clean, paint
from protocol.cli.place import Place
from protocol.cli.plain import print_json, read
from protocol.cli.talk import place_of
from protocol.client import Client, Failed, Lagged, NoDaemon
from protocol.messages.common import TailEvent
from protocol.messages.system import RecentEvents
from protocol.wire import Code

CONTROL = "ControlSocket"
CHATTY = ("steps", "logs")
"""Topics that are shown only to who names them."""
_COLOURS = {"crashes": "red", "lifecycle": "yellow", "queue": "cyan", "state": "green"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="what happens from now on, as it happens")
    but = " and ".join(CHATTY)
    parser.add_argument("--topic", action="append", help=f"may be repeated; default: all that there are, but {but}")


def run(options: argparse.Namespace) -> int:
    """Print what is remembered, or what happens for ever."""
    place = place_of(options)
    recent = msgspec.convert(read(place, CONTROL, {"type": "get_events", "topics": options.topic or []}), RecentEvents)
    topics = options.topic or [topic for topic in recent.topics if topic not in CHATTY]
    if options.follow:
        return show(place, topics, follow=True, as_json=options.json)
    for event in recent.events:
        if event.topic in topics:
            _print(event, as_json=options.json)
    return 0


def show(place: Place, topics: list[str], *, follow: bool, as_json: bool) -> int:
    """Print the events of these topics, from now on, until the daemon ends; with ``follow`` for ever."""
    for event in _events(place, topics, follow=follow):
        if isinstance(event, Lagged):
            print(
                paint(f"... {event.missed:,} events were missed: this reads too slowly", "dim", stream=sys.stderr),
                file=sys.stderr,
            )
        else:
            _print(event, as_json=as_json)
    return 0


def _events(place: Place, topics: list[str], *, follow: bool) -> Iterator[TailEvent | Lagged]:
    begun = False
    while True:
        try:
            with Client.connect(place.socket) as client, client.subscribe(topics) as subscription:
                if not begun:
                    # Whoever starts this and then makes something happen must know from when on it is seen.
                    _note("listening")
                begun = True
                yield from subscription
        except NoDaemon as error:
            if not (begun and follow):
                raise no_daemon(place) from error
        except Failed as error:
            if not (begun and follow and error.code in (Code.CONNECTION_LOST, Code.TIMED_OUT, Code.STOPPING)):
                raise refused(error, place) from error
        if not follow:
            return
        time.sleep(0.5)


def _print(event: TailEvent, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(event), on_one_line=True)
    else:
        print(_line(event), flush=True)


def _note(text: str) -> None:
    print(paint(text, "dim", stream=sys.stderr), file=sys.stderr, flush=True)


def _line(event: TailEvent) -> str:
    moment = paint(event.at.astimezone().strftime("%H:%M:%S.%f")[:-3], "dim")
    data: dict[str, Any] = dict(event.data)
    said = clean(str(data.pop("event", data.pop("kind", ""))))
    return f"{moment}  {paint(f'{event.topic:<9}', _COLOURS.get(event.topic, 'dim'))}  {said}{fields(data)}"
