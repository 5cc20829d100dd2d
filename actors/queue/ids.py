"""Job ids: 26 characters, sortable by the time at which they were made.

The layout is that of a ULID (48 bits of milliseconds, 80 random bits, Crockford's base 32) in lower case, so that
an id is safe in file names on every file system. Source: https://github.com/ulid/spec.
"""

from __future__ import annotations

import secrets
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
_RANDOM_BITS = 80


def new_id(now: datetime) -> str:
    """Return a fresh id for this moment (an aware time)."""
    number = int(now.timestamp() * 1000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
