"""The commands: what each is for, and how its words become options. Only the module of the one typed is imported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from protocol.cli.failure import MISUSE, CommandFailed

MODULES = {
    "run": ("run", "start the daemon in this terminal"),
    "init": ("init", "make a home: its folders and a commented stokehold.toml"),
    "status": ("status", "what the daemon does now, and why"),
    "tree": ("tree", "the actors, who keeps whom up, and how often each restarted"),
    "actor": ("actor", "look at one actor, trace it, suspend, resume or restart it"),
    "send": ("send", "say a message to an actor, and print its answer"),
    "submit": ("submit", "queue JSONL files"),
    "queue": ("queue", "list, show, retry, cancel or move what is queued"),
    "pause": ("gate", "stop training at the next optimizer step, with a checkpoint"),
    "resume": ("gate", "train again after a pause"),
    "skip": ("gate", "send the running file to the low line, its progress kept"),
    "stop": ("stop", "end the daemon with a checkpoint, and wait until it is gone"),
    "history": ("history", "how each file ended"),
    "models": ("models", "list or show published versions (needs no daemon)"),
    "checkpoints": ("checkpoints", "list or verify resumable states (needs no daemon)"),
    "consolidate": ("consolidate", "when the nightly consolidation runs, or run it now"),
    "config": ("config", "check a file, show what is in force, reload, or print the schema"),
    "logs": ("logs", "the daemon's log (needs no daemon)"),
    "events": ("events", "what happened of late; with -f: what happens, as it happens"),
    "metrics": ("metrics", "the daemon's metrics, as Prometheus sees them"),
    "doctor": ("doctor", "look for trouble in this environment and home"),
    "plan": ("tools", "will a file fit memory and disk, and how long will it take"),
    "preview": ("tools", "a few rows of a file as the model will see them"),
    "protocol": ("schema", "the JSON Schema of everything that can be said"),
}
"""Command -> (module of this package, one line of help)."""

EPILOG = """\
exit codes: 0 done, 1 failed, 2 misuse, 3 no daemon at this socket, 78 bad configuration
--home, --socket and --json may stand before or after the command."""


LARGEST_NUMBER = (1 << 31) - 1


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Does not ask ``shutil`` how wide the terminal is, as argparse would at each ``add_argument``: with what it brings
    along that costs more to import than argparse itself."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def run(words: list[str]) -> int:
    """Parse the words, import the command's module, and run it.

    Raises:
        CommandFailed: the command did not succeed.
        SystemExit: argparse printed help (0) or usage (2).
    """
    top = argparse.ArgumentParser(
        prog="stokehold",
        usage="stokehold [--home DIR] [--socket PATH] [--json] COMMAND ...",
        description="A daemon that teaches a language model from files, one after another.",
        epilog="\n".join(["commands:", *(f"  {name:<13}{help}" for name, (_, help) in MODULES.items()), "", EPILOG]),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    common_options(top)
    top.add_argument("--version", action="store_true", help="print the version and end")
    top.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    before = top.parse_args(words)
    if before.version:
        print(f"stokehold {import_module('importlib.metadata').version('stokehold')}")
        return 0
    if before.command is None:
        top.print_help(sys.stderr)
        return MISUSE
    if before.command not in MODULES:
        _unknown(before.command)
    module = import_module(f"protocol.cli.{MODULES[before.command][0]}")
    parser = argparse.ArgumentParser(
        prog=f"stokehold {before.command}",
        description=_sentence(MODULES[before.command][1]),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    common_options(parser)
    module.arguments(parser)
    options = parser.parse_args(
        before.rest, argparse.Namespace(**{k: v for k, v in vars(before).items() if k not in ("rest", "version")})
    )
    for name, default in (("home", None), ("socket", None), ("json", False)):
        if not hasattr(options, name):
            setattr(options, name, default)
    code: int = module.run(options)
    return code


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--home``, ``--socket`` and ``--json``. Where they do not stand they set nothing, so that the places where
    they may stand do not undo each other."""
    group = parser.add_argument_group("where and how")
    group.add_argument("--home", metavar="DIR", default=argparse.SUPPRESS, help="the home (or STOKEHOLD_HOME)")
    group.add_argument(
        "--socket", metavar="PATH", default=argparse.SUPPRESS, help="the control socket, if not the home's"
    )
    group.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def subcommands(parser: argparse.ArgumentParser, **helps: str) -> dict[str, argparse.ArgumentParser]:
    """Add words below a command (``queue list``), each with the common options, and return their parsers by name."""
    below = parser.add_subparsers(dest="action", required=True, metavar="ACTION", prog=parser.prog)
    parsers = {}
    for name, text in helps.items():
        parsers[name] = below.add_parser(
            name, help=text, description=_sentence(text), formatter_class=Formatter, allow_abbrev=False
        )
        common_options(parsers[name])
    return parsers


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads an option's value as a whole number of at least so many, and of 31 bits."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is less than {least}")
        if number > LARGEST_NUMBER:
            raise argparse.ArgumentTypeError(f"{number} is more than {LARGEST_NUMBER}")
        return number

    return whole_number


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _unknown(command: str) -> NoReturn:
    from difflib import get_close_matches

    close = get_close_matches(command, MODULES, n=1)
    hint = f"did you mean: stokehold {close[0]}" if close else "see: stokehold --help"
    raise CommandFailed(f"there is no command {command!r}", hint, MISUSE)
