"""One line of the log, or one event, as a person reads it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from protocol.cli.paint import clean, paint

_COLOURS = {"debug": "dim", "info": "blue", "warning": "yellow", "error": "red", "critical": "red"}
_TEXT_WITH_LINES = ("traceback", "stack", "exception")


def told(line: str) -> str:
    """Return a JSON line of the log in words. What is no JSON object is returned as it stands."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return clean(line)
    moment = paint(_moment(str(record.pop("ts", ""))), "dim")
    level = str(record.pop("level", "info"))
    actor = clean(str(record.pop("actor", "")))
    record.pop("topic", None)  # of the event stream; the event itself tells as much
    said = clean(str(record.pop("event", "")))
    long = [str(record.pop(name)) for name in _TEXT_WITH_LINES if record.get(name)]
    who = f"{actor}: " if actor else ""
    text = f"{moment}  {paint(f'{level:<7}', _COLOURS.get(level, 'dim'))}  {who}{said}{fields(record)}"
    for block in long:
        text += "".join(f"\n    {clean(part)}" for part in block.splitlines())
    return text


def _moment(text: str) -> str:
    """Return a time of the log in local time, to the millisecond."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat(" ", "milliseconds")[:23]
    except ValueError:
        return clean(text)


def fields(record: dict[str, Any]) -> str:
    """Return ``  key=value`` of each that has a value, on one line."""
    return "".join(
        f"  {paint(f'{clean(key)}=', 'dim')}{_value(value)}" for key, value in record.items() if value not in (None, "")
    )


def _value(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value:
        return clean(value)
    return clean(json.dumps(value, ensure_ascii=False))
