"""Where the daemon is: a home, its socket, or both. Standard library only, and little of it: ``status`` passes here."""

from __future__ import annotations

import os

from protocol.cli.failure import MISUSE, CommandFailed


class Place:
    """A home and the socket to reach its daemon by. ``home`` is None when ``--socket`` alone was given."""

    __slots__ = ("home", "socket")

    def __init__(self, home: str | None, socket: str) -> None:
        self.home = home
        self.socket = socket

    def command(self, words: str) -> str:
        """Return a command for people to copy. To a socket that was given alone it says which."""
        if self.home:
            return f"stokehold {words}"
        from shlex import quote  # only for those who meet with something

        return f"stokehold --socket {quote(self.socket)} {words}"


def find_home(home: str | None) -> str | None:
    """Return ``--home``, else ``STOKEHOLD_HOME``, else the current folder if it is a home, else None."""
    if home:
        return home
    if named := os.environ.get("STOKEHOLD_HOME"):
        return named
    return "." if os.access("stokehold.toml", os.F_OK) or os.access("run/lock", os.F_OK) else None


def find_place(home: str | None, socket: str | None) -> Place:
    """Return the place that the options name.

    Raises:
        CommandFailed: nothing names one (misuse).
    """
    if socket and not home:
        return Place(None, socket)
    found = find_home(home)
    if found is None:
        raise CommandFailed(
            "which home? The current folder is not one",
            "say --home DIR or set STOKEHOLD_HOME; make a new one with: stokehold init DIR",
            MISUSE,
        )
    return Place(found, socket or f"{found}/run/control.sock")
