"""``stokehold plan`` and ``stokehold preview``: questions that need the tokenizer and the model's shape.

They import torch, so they are programs of their own, which this process becomes.
"""

from __future__ import annotations

import argparse

from protocol.cli.commands import at_least
from protocol.cli.place import find_home
from protocol.cli.run import become


def arguments(parser: argparse.ArgumentParser) -> None:
    plan = parser.prog.endswith(" plan")
    parser.add_argument("file", nargs="?" if plan else None, metavar="FILE", help="a JSONL file")
    parser.add_argument("--config", metavar="CONFIG", help="a TOML file; default: HOME/stokehold.toml")
    if not plan:
        parser.add_argument("--rows", type=at_least(1), metavar="N", help="how many rows to print")


def run(options: argparse.Namespace) -> int:
    """Become the tool."""
    words: list[str] = []
    if options.config:
        words += ["--config", options.config]
    if home := find_home(options.home):
        words += ["--home", home]
    if options.json:
        words.append("--json")
    if getattr(options, "rows", None):
        words += ["--rows", str(options.rows)]
    if options.file:
        # A name that begins with a dash must not be read as an option.
        words.append(options.file if not options.file.startswith("-") else f"./{options.file}")
    become(f"actors.tools.{options.command}", words)
