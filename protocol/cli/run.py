"""``stokehold run``: become the daemon.

The process is replaced by ``python -P -m supervisor``, so pid, terminal and signals stay as they are, and nothing of
the command line lives on in it. ``-P`` keeps a folder named ``supervisor`` in the current directory from being run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from pathlib import Path
from shlex import quote
from typing import NoReturn

from protocol.cli.failure import BAD_CONFIG, MISUSE, CommandFailed
from protocol.cli.place import find_home

BACKENDS = ("asyncio", "trio")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a TOML file; default: HOME/stokehold.toml")
    parser.add_argument("--backend", choices=BACKENDS, help="the event loop; default: what the file says")


def run(options: argparse.Namespace) -> int:
    """Replace this process by the daemon."""
    home = options.home or os.environ.get("STOKEHOLD_HOME") if options.config else find_home(options.home)
    if not home and not options.config:
        raise CommandFailed(
            "nothing says what to run: no CONFIG, no home, and the current folder is not one",
            "stokehold run CONFIG, or stokehold run --home DIR; make a new home with: stokehold init DIR",
            MISUSE,
        )
    if options.config and (not os.access(options.config, os.R_OK) or Path(options.config).is_dir()):
        raise CommandFailed(
            f"cannot read the configuration file {options.config}",
            "name a TOML file, or make a home that has one: stokehold init DIR",
            BAD_CONFIG,
        )
    words: list[str] = []
    if backend := options.backend or _backend(Path(options.config or f"{home}/stokehold.toml")):
        words += ["--backend", backend]
    if options.config:
        words += ["--config", options.config]
    if home:
        words += ["--home", home]
    if sys.stderr.isatty():  # the daemon itself says nothing while all is well, and a person would wonder
        watch = f" In another terminal: stokehold status --home {quote(str(Path(home).absolute()))}" if home else ""
        print(f"stokehold: starting; Ctrl-C stops it gently.{watch}", file=sys.stderr)
    become("supervisor", words)


def _backend(config: Path) -> str | None:
    """Return the event loop that the file asks for: it must be known before the daemon, which judges the file, runs."""
    try:
        section = tomllib.loads(config.read_text(encoding="utf-8")).get("daemon")
    except (OSError, ValueError):
        return None
    backend = section.get("backend") if isinstance(section, dict) else None
    return backend if backend in BACKENDS else None


def become(module: str, words: list[str]) -> NoReturn:
    """Replace this process by ``python -P -m MODULE WORDS``."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *words])
