"""What is said when a checkpoint cannot be trusted, and when none can."""

from __future__ import annotations

import shlex

import msgspec

from protocol.home import Home
from protocol.records import Head


class Torn(Exception):
    """One checkpoint or version is not what its manifest vouches for."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} is torn: {why}")
        self.name = name
        self.why = why


class AllTorn(Exception):
    """There are checkpoints and none may be resumed from. The text ends with the commands that end it.

    Never answered by beginning again from the base: runs that did so were noticed after days (NeMo Speech#10228).
    """


def none_left(home: Home, torn: list[Torn]) -> AllTorn:
    """Return the error for a home in which every checkpoint on HEAD's lineage is damaged."""
    found = "; ".join(str(one) for one in torn) or "HEAD names one and no folder is left"
    return AllTorn(
        f"no checkpoint in {home.checkpoints} can be resumed from ({found}). "
        "They were set aside as .torn-NAME. Put a good copy back: "
        f"cp -a BACKUP/NAME {shlex.quote(str(home.checkpoints))}/ ; {_begin_again(home)}"
    )


def head_missing(home: Home, why: str, adopt: Head | None) -> AllTorn:
    """Return the error for checkpoints without a usable HEAD. ``adopt`` is a HEAD that names the newest whole one."""
    choice = "None of them is whole."
    if adopt is not None:
        text = shlex.quote(msgspec.json.encode(adopt).decode())
        choice = f"Go on from the newest whole one: printf %s {text} > {shlex.quote(str(home.head))} ;"
    return AllTorn(f"{home.checkpoints} holds checkpoints and {why}. {choice} {_begin_again(home)}")


def _begin_again(home: Home) -> str:
    checkpoints, head = shlex.quote(str(home.checkpoints)), shlex.quote(str(home.head))
    return f"or begin again from the base model: mv {checkpoints} {checkpoints}.aside && rm -f {head}"
