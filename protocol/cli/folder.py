"""What the commands share that read a home with no daemon: opening it, its HEAD, and telling of damage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from protocol.cli.failure import MISUSE, CommandFailed
from protocol.cli.paint import clean, paint
from protocol.cli.place import find_home
from protocol.home import Home
from protocol.records import Head, NewerFormat, Unreadable, read_head


def home_folder(options: argparse.Namespace) -> Home:
    """Return the home that the options name.

    Raises:
        CommandFailed: none is named (misuse), or what is named is no folder.
    """
    found = find_home(options.home)
    if found is None:
        raise CommandFailed("which home? The current folder is not one", "say --home DIR or set STOKEHOLD_HOME", MISUSE)
    home = Home(Path(found))
    if not home.root.is_dir():
        raise CommandFailed(f"there is no folder {home.root}", f"make a home there: stokehold init {home.root}")
    return home


def opened_home(options: argparse.Namespace) -> tuple[Home, Head | None]:
    """Return the home and its HEAD. A HEAD that cannot be read is told of on stderr and taken for none."""
    home = home_folder(options)
    try:
        return home, read_head(home)
    except (Unreadable, NewerFormat) as error:
        say_damage([str(error)])
        return home, None


def say_damage(texts: Iterable[str]) -> None:
    """Tell on stderr of what cannot be read."""
    for text in texts:
        print(paint("damaged:", "red", stream=sys.stderr), clean(text), file=sys.stderr)


def when(moment: datetime | None) -> str:
    """Return a moment in local time, to the second."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
