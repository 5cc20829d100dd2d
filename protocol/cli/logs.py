"""``stokehold logs``: the log files of the home, old ones first; with no daemon too."""

from __future__ import annotations

import argparse
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from protocol.cli.commands import at_least
from protocol.cli.failure import CommandFailed
from protocol.cli.folder import home_folder
from protocol.cli.log_line import told

POLL = 0.2
CURRENT = "stokehold.log"
FOLLOWED_AFTER = 10
"""Lines shown before what is new, as ``tail -f`` does."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    parser.add_argument("-n", "--lines", type=at_least(0), metavar="N", help="the last N lines (all; with -f, 10)")


def run(options: argparse.Namespace) -> int:
    """Print the log."""
    folder = home_folder(options) / "logs"
    files = log_files(folder)
    if not files and not options.follow:
        raise CommandFailed(f"there is no log in {folder}", "has this home ever run? stokehold run --home DIR")
    last = FOLLOWED_AFTER if options.follow and options.lines is None else options.lines
    show = _raw if options.json else told
    # Opened before the old lines are read, so that nothing falls between the two.
    following = Follower(folder) if options.follow else None
    for line in _tail(_old_lines(files, following), last):
        print(show(line))
    if following:
        for line in following.lines():
            print(show(line), flush=True)
    return 0


def log_files(folder: Path) -> list[Path]:
    """Return the log files of a home: ``stokehold.log.N``, the greatest N first, then ``stokehold.log``."""
    if not folder.is_dir():
        return []
    numbered = ((path.name.removeprefix(f"{CURRENT}."), path) for path in folder.iterdir())
    rotated = sorted(((int(number), path) for number, path in numbered if number.isdecimal()), reverse=True)
    current = folder / CURRENT
    return [path for _, path in rotated] + ([current] if current.exists() else [])


class Follower:
    """The current log file from its present end on, over its rotations."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CURRENT
        self._file = self._open()
        if self._file:
            self._file.seek(0, os.SEEK_END)
        self.begins = self._file.tell() if self._file else 0
        """Where in the current file it begins, in bytes."""

    def lines(self) -> Iterator[str]:
        """Yield complete lines as they are written, for ever."""
        rest = b""
        while True:
            # Asked before reading: once it is replaced nothing more is written to it, so what is read then is the rest.
            replaced = self._replaced()
            data = self._file.read() if self._file else b""
            if data:
                *whole, rest = (rest + data).split(b"\n")
                yield from (_text(line) for line in whole)
            elif replaced:
                if self._file:
                    self._file.close()
                self._file, rest = self._open(), b""
            else:
                time.sleep(POLL)

    def _open(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return None

    def _replaced(self) -> bool:
        """Whether the name now stands for another file, or for a shorter one."""
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        mine = os.fstat(self._file.fileno())
        return (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino) or named.st_size < self._file.tell()


def _old_lines(files: Iterable[Path], following: Follower | None) -> Iterator[str]:
    for path in files:
        left = following.begins if following and path.name == CURRENT else None
        try:
            with path.open("rb") as file:
                for line in file:
                    if left is not None:
                        left -= len(line)
                        if left < 0:
                            break
                    yield _text(line.rstrip(b"\n"))
        except FileNotFoundError:  # rotated away
            continue


def _tail(lines: Iterator[str], last: int | None) -> Iterable[str]:
    return lines if last is None else deque(lines, maxlen=last)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _raw(line: str) -> str:
    return line
