"""What a check found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """``trouble``: something will not work, or is damaged; ``warning``: it will some day; ``note``: good to know."""

    level: Literal["ok", "note", "warning", "trouble"]
    what: str
    remedy: str = ""
