"""What is said when a checkpoint cannot be trusted, and when none can."""

from __future__ import annotations

import shlex

import msgspec

from protocol.home import Home
from protocol.records import Head


class Torn(Exception):
    """One checkpoint is not what its manifest vouches for."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} is torn: {why}")
        self.name = name
        self.why = why


class AllTorn(Exception):
    """There are checkpoints and none may be resumed from. The text ends with the commands that end it.

    Never answered by beginning again from the base: runs that did so went unnoticed for days (NeMo Speech#10228).
    """


def none_left(home: Home, torn: list[Torn]) -> AllTorn:
    """Return the error for a home in which every checkpoint on HEAD's lineage is damaged."""
    found = "; ".join(map(str, torn))
    return AllTorn(
        f"no checkpoint in {home.checkpoints} can be resumed from ({found}); what was left of them was set aside as "
        f".torn-NAME. {_commands(home, f'put a whole one back: cp -a BACKUP/NAME {_quoted(home.checkpoints)}/')}"
    )


def head_missing(home: Home, why: str, adopt: Head | None) -> AllTorn:
    """Return the error for checkpoints without a usable HEAD. ``adopt`` is a HEAD that names the newest whole one."""
    choice = None
    if adopt is not None:
        text = shlex.quote(msgspec.json.encode(adopt).decode())
        choice = f"go on from the newest whole one: printf %s {text} > {_quoted(home.head)}"
    return AllTorn(f"{home.checkpoints} holds checkpoints and {why}. {_commands(home, choice)}")


def _commands(home: Home, choice: str | None) -> str:
    root, old = _quoted(home.root), _quoted(home.checkpoints)
    aside = f'mv {old} {old}.aside-"$(date +%s)" && mkdir {old} && rm -f {_quoted(home.head)}'
    again = f"begin again from the base model: {aside}"
    either = f"{choice} , or {again}" if choice else again
    return f"Stop the daemon: stokehold stop --home {root} , then {either} , and start it: {start_command(home)}"


def start_command(home: Home) -> str:
    """Return what starts this home's daemon again: with settings elsewhere, only who started it knows."""
    if home.settings.exists():
        return f"stokehold run --home {_quoted(home.root)}"
    return f"stokehold run CONFIG --home {_quoted(home.root)}"


def _quoted(path: object) -> str:
    return shlex.quote(str(path))
