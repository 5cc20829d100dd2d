"""``stokehold tree``: the actors, drawn."""

from __future__ import annotations

import argparse
from typing import Any

from protocol.cli.paint import clean, count, duration, paint
from protocol.cli.place import find_place
from protocol.cli.plain import print_json, read

_COLOURS = {
    "running": "green",
    "starting": "yellow",
    "restarting": "yellow",
    "cooling down": "yellow",
    "suspended": "yellow",
    "absent": "yellow",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """``tree`` has no options of its own."""


def run(options: argparse.Namespace) -> int:
    """Print the tree."""
    tree = read(find_place(options.home, options.socket), "ControlSocket", {"type": "get_tree"})
    if options.json:
        print_json(tree)
        return 0
    drawn = list(_rows(tree, "", ""))
    widths = max(len(name) for name, _ in drawn), max(len(node["status"]) for _, node in drawn)
    for name, node in drawn:
        print(_line(name, widths, node).rstrip())
    return 0


def _rows(node: dict[str, Any], here: str, below: str) -> list[tuple[str, dict[str, Any]]]:
    """Return (the branch drawn before the name and the name, node) of a node and all below it."""
    rows = [(here + clean(node["id"]), node)]
    for child in node["children"]:
        last = child is node["children"][-1]
        rows += _rows(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
    return rows


def _line(name: str, widths: tuple[int, int], node: dict[str, Any]) -> str:
    status = node["status"]
    padded = f"{name:<{widths[0]}}"
    text = paint(padded, "bold") if node["kind"] == "supervisor" else padded
    text += f"  {paint(f'{status:<{widths[1]}}', _COLOURS.get(status, 'red'))}  "
    facts = []
    if node["pid"] is not None:
        facts.append(f"pid {node['pid']}")
    if node["uptime_s"] is not None:
        facts.append(f"up {duration(node['uptime_s'])}")
    if node["mailbox"]:
        facts.append(f"mailbox {node['mailbox']:,}")
    if node["restarts"]:
        facts.append(paint(count(node["restarts"], "restart"), "yellow"))
    if node["last_exit"] and (node["restarts"] or node["status"] != "running"):
        facts.append(paint(f"last exit: {clean(node['last_exit'].splitlines()[0])}", "dim"))
    return text + "  ".join(facts)
