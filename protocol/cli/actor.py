"""``stokehold actor``: look at one actor of the tree, trace it, suspend, resume or restart it.

On the daemon's tree, and on any other that opened a control socket (``supervisor.control``).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from protocol.cli.commands import subcommands
from protocol.cli.failure import CommandFailed, no_daemon, refused
from protocol.cli.paint import clean, count, duration, paint
from protocol.cli.place import Place, find_place
from protocol.cli.plain import print_json, read
from protocol.quick import Failed, NoDaemon, ask

CONTROL = "ControlSocket"
ORDER_WITHIN = 30.0
"""Seconds that an actor has to come to the end of its message in hand."""
RESTART_WITHIN = 3600.0
"""Seconds for a restart: the slowest start there is may take so long."""
BACK_WITHIN = 30.0
"""Seconds in which a control socket that went down with what was restarted has to be back."""


def arguments(parser: argparse.ArgumentParser) -> None:
    words = subcommands(
        parser,
        state="what an actor does now, and what it says of itself; also while it is wedged",
        suspend="have an actor handle no message until it is resumed or restarted",
        resume="have a suspended actor go on",
        restart="stop an actor and start it again, with those that fall with it",
        trace="each message that an actor takes in hand, and how each call is answered, as it happens",
    )
    for word in words.values():
        word.add_argument("name", metavar="ACTOR", help="its name in: stokehold tree")


def run(options: argparse.Namespace) -> int:
    """Do what the word below ``actor`` says."""
    return {"state": _state, "suspend": _order, "resume": _order, "restart": _restart, "trace": _trace}[options.action](
        options
    )


def _state(options: argparse.Namespace) -> int:
    _print_state(options, read(_place(options), CONTROL, {"type": "get_actor", "name": options.name}))
    return 0


def _order(options: argparse.Namespace) -> int:
    place = _place(options)
    body = {"type": f"{options.action}_actor", "name": options.name}
    done = read(place, CONTROL, body, ORDER_WITHIN)
    if options.json:
        print_json(done)
    else:
        from protocol.cli.talk import say

        resume = place.command(f"actor resume {options.name}")
        goes_on = f"; go on with: {resume}" if options.action == "suspend" else ""
        say(done["detail"] + goes_on)
    return 0


def _restart(options: argparse.Namespace) -> int:
    place = _place(options)
    look = {"type": "get_actor", "name": options.name}
    before = read(place, CONTROL, look)
    try:
        state = ask(place.socket, CONTROL, {"type": "restart_actor", "name": options.name}, RESTART_WITHIN)
    except NoDaemon as error:
        raise no_daemon(place) from error
    except Failed as error:
        if error.code not in ("connection_lost", "restarting", "stopping"):
            raise refused(error, place) from error
        state = _until_back(place, look, before["incarnation"])  # it is what answers, or took along what answers
    _print_state(options, state)
    return 0


def _until_back(place: Place, look: dict[str, Any], before: int) -> Any:
    """Return the state of a new incarnation, as soon as somebody answers and it runs."""
    deadline = time.monotonic() + BACK_WITHIN
    while time.monotonic() < deadline:
        try:
            state = ask(place.socket, CONTROL, look)
            if state["incarnation"] > before and state["status"] == "running":
                return state
        except (NoDaemon, Failed):
            pass  # not yet
        time.sleep(0.1)
    raise CommandFailed(f"{look['name']} was told to restart and is not back", f"see: {place.command('tree')}")


def _trace(options: argparse.Namespace) -> int:
    from protocol.cli.events import show

    return show(_place(options), [f"trace/{options.name}"], follow=False, as_json=options.json)


def _place(options: argparse.Namespace) -> Place:
    return find_place(options.home, options.socket)


def _print_state(options: argparse.Namespace, state: dict[str, Any]) -> None:
    if options.json:
        print_json(state)
        return
    facts = [state["status"], f"incarnation {state['incarnation']}"]
    if state["pid"] is not None:
        facts.append(f"pid {state['pid']}")
    if state["uptime_s"] is not None:
        facts.append(f"up {duration(state['uptime_s'])}")
    if state["restarts"]:
        facts.append(count(state["restarts"], "restart"))
    print(f"{paint(clean(state['name']), 'bold')}  {'  '.join(facts)}")
    if state["kind"] == "worker":
        waiting = ", ".join(f"{number} {kind}" for kind, number in sorted(state["waiting"].items()))
        print(f"  mailbox       {state['mailbox']:,} of {state['bound']:,}{f': {clean(waiting)}' if waiting else ''}")
    if state["last_message"]:
        print(f"  last message  {clean(state['last_message'])}")
    for key, value in state["summary"].items():
        print(f"  {clean(str(key)):<12}  {clean(str(value))}")
    if state["last_exit"]:
        print(f"  last exit     {clean(state['last_exit'].splitlines()[0])}")
    if state["traceback"]:
        print("\n".join(paint(f"    {clean(line)}", "dim") for line in state["traceback"].splitlines()))
