"""Waits for disk: a write begins when its bytes are granted, and begins again when the disk was full all the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from actors.trainer.port import Port, Stop
from actors.trainer.staging import FULL
from protocol.messages.disk import Purpose

T = TypeVar("T")

Blocked = Callable[[str | None, str | None], None]
"""Is told why training waits and what ends it; None and None when it goes on."""

REMEDY = "free space, or lower disk.refuse_below and: stokehold config reload"

DISK_WAIT = 5.0
"""Seconds between two looks at a full disk."""
WRITE_LIMIT = 3600.0
"""Seconds that one write may take without a sign of life."""


class Room:
    """Room on the disk, asked for before each write. What waits is in memory and loses nothing by waiting."""

    def __init__(self, port: Port, blocked: Blocked) -> None:
        self._port = port
        self._blocked = blocked

    def write(self, size: int, purpose: Purpose, path: Path, write: Callable[[], T]) -> T | None:
        """Return what ``write`` returns, once ``size`` bytes were granted and it met no full disk.

        Once a stop is asked it is tried one more time, from the reserve that is held back for stops, and then given up:
        None. ``write`` must leave nothing behind when it fails.

        Raises:
            OSError: the disk is not full but broken.
        """
        waited = False
        while True:
            last = isinstance(self._port.wanted(), Stop)
            why = self._attempt(size, "stop" if last else purpose, write)
            if not isinstance(why, _Full):
                if waited:
                    self._blocked(None, None)
                return why
            if why.met:
                self._port.write_failed(str(path), why.reason)
            if last:
                return None
            waited = True
            self._blocked(why.reason, REMEDY)
            self._port.beat("waiting for disk", DISK_WAIT * 10)
            self._port.wait(DISK_WAIT)

    def _attempt(self, size: int, purpose: Purpose, write: Callable[[], T]) -> T | _Full:
        reserved = self._port.reserve(size, purpose, 0.0)
        if not reserved.granted:
            return _Full(reserved.reason, met=False)
        try:
            self._port.beat("saving", WRITE_LIMIT)
            return write()
        except OSError as error:
            if error.errno not in FULL:
                raise
            return _Full(os.strerror(error.errno), met=True)
        finally:
            self._port.unreserve(reserved.token)


class _Full:
    """Why a write could not be made. ``met``: it was begun, and the disk was full."""

    def __init__(self, reason: str, met: bool) -> None:
        self.reason = reason
        self.met = met
