"""The log of a home: the event stream, written as JSON lines to ``logs/stokehold.log``, rotated by size.

One source for both: what ``stokehold events`` shows while it happens, ``stokehold logs`` shows afterwards. Training
steps are left out; their numbers stand in ``/metrics`` and, summed up, in the history.

Lines are written in a worker thread: while a checkpoint of gigabytes goes to the same disk, even a short write may
wait for seconds.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Final

import msgspec
from anyio import CancelScope, to_thread

from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import TailEvent
from supervisor import Subscription

TOPICS: Final = ("logs", "state", "queue", "lifecycle", "crashes")
NAME: Final = "stokehold.log"
KEPT: Final = 5
"""Rotated files beside the current one."""
BOUND: Final = 10_000
"""Entries that may wait while the disk is slow; above it the oldest are lost, and counted."""

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_USUAL: Final = {"crashes": {"level": "error", "event": "crashed"}}


async def keep_logbook(home: Home, store: ConfigStore, entries: Subscription) -> None:
    """Write the entries until the subscription ends. A disk that takes no more loses entries, never the daemon."""
    file = _LogFile(home.logs / NAME, store.current.daemon.log_bytes)
    lagged = 0
    try:
        with entries:
            async for entry in entries:
                batch = [entry, *_waiting(entries)]
                file.lost += entries.lagged - lagged
                lagged = entries.lagged
                with CancelScope(shield=True):  # what was taken is written, also when the tree stops
                    await to_thread.run_sync(file.write, _wanted(batch, store))
    finally:
        file.write(_wanted(_waiting(entries), store))  # the last words of a tree that stops
        file.close()


def line_of(entry: TailEvent) -> dict[str, Any]:
    """Return the log line of an event: ``ts``, ``level``, ``topic``, ``event``, and whatever else it carries."""
    usual = _USUAL.get(entry.topic, {"level": "info", "event": entry.topic})
    data = dict(entry.data)
    level = data.pop("level") if data.get("level") in _LEVELS else usual["level"]
    return {"ts": entry.at, "level": level, "topic": entry.topic, "event": data.pop("event", usual["event"]), **data}


def _waiting(entries: Subscription) -> list[TailEvent]:
    taken: list[TailEvent] = []
    while (entry := entries.take()) is not None:
        taken.append(entry)
    return taken


def _wanted(entries: list[TailEvent], store: ConfigStore) -> list[dict[str, Any]]:
    least = _LEVELS[store.current.daemon.log_level]
    return [line for line in map(line_of, entries) if _LEVELS[line["level"]] >= least]


class _LogFile:
    """The current file and its rotation. What cannot be written is counted, and told when it can be again."""

    def __init__(self, path: Path, limit: int) -> None:
        self.lost = 0
        self._path = path
        self._limit = limit
        self._file: FileIO | None = None
        self._torn = False
        """The last line was not taken whole."""

    def write(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            data = _encoded(line)
            try:
                if self.lost:
                    self._append(_encoded(_missing(self.lost)))
                    self.lost = 0
                self._append(data)
            except OSError:  # the same disk trouble is on DiskMonitor's level and in ``status``
                self.lost += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, data: bytes) -> None:
        file = self._current()
        size = os.fstat(file.fileno()).st_size
        if size and size + len(data) > self._limit:
            self._rotate()
            file = self._current()
        if self._torn:
            data = b"\n" + data
        self._torn = file.write(data) < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _current(self) -> FileIO:
        """Return the file that bears the name now: somebody may have moved or deleted the one that is open."""
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                    return self._file
            self.close()
        self._path.parent.mkdir(exist_ok=True)
        self._file = FileIO(self._path, "ab")
        return self._file

    def _rotate(self) -> None:
        self.close()
        for number in range(KEPT, 0, -1):
            older = self._path.with_name(f"{NAME}.{number}")
            newer = self._path.with_name(f"{NAME}.{number - 1}") if number > 1 else self._path
            if newer.exists():
                newer.replace(older)


def _missing(count: int) -> dict[str, Any]:
    return {"ts": datetime.now(UTC), "level": "warning", "event": "log_entries_lost", "count": count}


def _encoded(line: dict[str, Any]) -> bytes:
    """Return a line as it stands in the file. All of it is ASCII, for a file's name need not be valid UTF-8."""
    return json.dumps(line, default=_plain, skipkeys=True).encode("ascii") + b"\n"


def _plain(value: object) -> object:
    """Return what JSON has no form for as something that it has."""
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return str(value)
