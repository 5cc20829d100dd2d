"""The log of a home: the event stream, written as JSON lines to ``logs/stokehold.log``, rotated by size.

One source for both: what ``stokehold events`` shows while it happens, ``stokehold logs`` shows afterwards. Training
steps are left out; their numbers stand in ``/metrics`` and, summed up, in the history.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from typing import Any

import msgspec

from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import TailEvent
from supervisor import Subscription

TOPICS = ("logs", "state", "queue", "lifecycle", "crashes")
NAME = "stokehold.log"
KEPT = 5
"""Rotated files beside the current one."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_USUAL = {"crashes": "error"}


async def keep_logbook(home: Home, store: ConfigStore, entries: Subscription) -> None:
    """Write the entries until the subscription ends. A disk that takes no more loses entries, never the daemon."""
    writer = _Writer(home, store.current.daemon.log_bytes)
    lost = 0
    try:
        with entries:
            async for entry in entries:
                if entries.lagged > lost:
                    writer.write(
                        {
                            "ts": entry.at,
                            "level": "warning",
                            "event": "log_entries_lost",
                            "count": entries.lagged - lost,
                        }
                    )
                    lost = entries.lagged
                line = line_of(entry)
                if _LEVELS.get(line["level"], logging.INFO) >= _LEVELS[store.current.daemon.log_level]:
                    writer.write(line)
    finally:
        writer.close()


def line_of(entry: TailEvent) -> dict[str, Any]:
    """Return the log line of an event: ``ts``, ``level``, ``topic``, ``event``, and whatever else it carries."""
    data = dict(entry.data)
    level = data.pop("level") if data.get("level") in _LEVELS else _USUAL.get(entry.topic, "info")
    return {"ts": entry.at, "level": level, "topic": entry.topic, "event": data.pop("event", entry.topic), **data}


class _Writer:
    def __init__(self, home: Home, limit: int) -> None:
        self._handler = _Handler(home.logs / NAME, maxBytes=limit, backupCount=KEPT, encoding="ascii", delay=True)

    def write(self, line: dict[str, Any]) -> None:
        text = json.dumps(msgspec.to_builtins(line))  # pure ASCII: a file's name need not be valid UTF-8
        self._handler.emit(logging.LogRecord("stokehold", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        with suppress(OSError):  # what the full disk did not take before, it does not take now
            self._handler.close()


class _Handler(RotatingFileHandler):
    """Loses what cannot be written: the log must not be what ends a daemon on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        """Say nothing: the same disk trouble is on DiskMonitor's level and in ``status``."""
