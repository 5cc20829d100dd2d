"""What the commands share that read a home with no daemon: finding it, its HEAD, and telling of damage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.cli.failure import MISUSE, CommandFailed
from protocol.cli.paint import clean, paint
from protocol.cli.place import find_home

if TYPE_CHECKING:
    from protocol.home import Home
    from protocol.records import Head


def home_folder(options: argparse.Namespace) -> Path:
    """Return the folder of the home that the options name.

    Raises:
        CommandFailed: none is named (misuse), or what is named is no folder.
    """
    found = find_home(options.home)
    if found is None:
        raise CommandFailed("which home? The current folder is not one", "say --home DIR or set STOKEHOLD_HOME", MISUSE)
    folder = Path(found)
    if not folder.is_dir():
        raise CommandFailed(f"there is no folder {folder}", f"make a home there: stokehold init {folder}")
    return folder


def opened_home(options: argparse.Namespace) -> tuple[Home, Head | None]:
    """Return the home and its HEAD. A HEAD that cannot be read is told of on stderr and taken for none."""
    from protocol.home import Home
    from protocol.records import NewerFormat, Unreadable, read_head

    home = Home(home_folder(options))
    try:
        return home, read_head(home)
    except (Unreadable, NewerFormat) as error:
        say_damage([str(error)])
        return home, None


def say_damage(texts: Iterable[str]) -> None:
    """Tell on stderr of what cannot be read."""
    for text in texts:
        print(paint("damaged:", "red", stream=sys.stderr), clean(text), file=sys.stderr)
