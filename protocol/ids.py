"""Ids of jobs: 26 characters, sortable by the time at which they were made.

The layout is that of a ULID (48 bits of milliseconds, 80 random bits, Crockford's base 32) in lower case, so that
an id is safe in file names on every file system. Source: https://github.com/ulid/spec.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
_RANDOM_BITS = 80


def new_id(now: datetime) -> str:
    """Return a fresh id for this moment (an aware time)."""
    return _text(_number(int(now.timestamp() * 1000)))


def new_ids() -> Iterator[str]:
    """Yield fresh ids for the moments at which they are asked for, each greater than the one before it."""
    last = 0
    while True:
        last = max(last + 1, _number(time.time_ns() // 1_000_000))
        yield _text(last)


def _number(milliseconds: int) -> int:
    return milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)


def _text(number: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
