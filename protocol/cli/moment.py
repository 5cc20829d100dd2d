"""Moments as people read them: local time, to the second."""

from __future__ import annotations

from datetime import datetime


def when(moment: datetime | str | None) -> str:
    """Return a moment (aware, or ISO 8601 as it stands in JSON) in local time; nothing for None."""
    if moment is None:
        return ""
    known = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return known.astimezone().strftime("%Y-%m-%d %H:%M:%S")
