"""Sizes, durations and times of day as people write them, both ways."""

from __future__ import annotations

import re
from datetime import time
from fractions import Fraction

SIZE_EXAMPLE = 'a size such as "10GiB", "500MB" or a number of bytes'
DURATION_EXAMPLE = 'a duration such as "30s", "10m", "1h30m", "7d" or a number of seconds'
CLOCK_EXAMPLE = 'a time of day from "00:00" to "23:59"'

SIZE_PATTERN = r"^\s*\d+(\.\d+)?\s*(B|[kKMGTP]B|[KMGTP]iB)?\s*$"
DURATION_PATTERN = r"^\s*(\d+(\.\d+)?\s*(w|d|h|min|m|s|ms)\s*)+$"
CLOCK_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d$"

_SIZE_UNITS: dict[str, int] = {"": 1, "B": 1, "kB": 1000} | {
    f"{letter}{mark}B": base ** (power + 1)
    for power, letter in enumerate("KMGTP")
    for mark, base in (("", 1000), ("i", 1024))
}
_DURATION_UNITS = {
    "w": Fraction(604800), "d": Fraction(86400), "h": Fraction(3600), "min": Fraction(60), "m": Fraction(60),
    "s": Fraction(1), "ms": Fraction(1, 1000),
}  # fmt: skip


def parse_size(text: str) -> int:
    """Return a number of bytes. ``MB`` is a million, ``MiB`` is 1024 x 1024; no unit means bytes.

    Raises:
        ValueError: it is no size, or not a whole number of bytes.
    """
    if not re.match(SIZE_PATTERN, text, re.ASCII):
        raise ValueError(f"{text!r} is not {SIZE_EXAMPLE}")
    number, unit = re.fullmatch(r"([\d.]+)\s*(\w*)", text.strip(), re.ASCII).groups()  # type: ignore[union-attr]
    size = Fraction(number) * _SIZE_UNITS[unit]
    if size.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size.numerator


def parse_duration(text: str) -> float:
    """Return a number of seconds. Units: w, d, h, m or min, s, ms; larger ones first, each once.

    Raises:
        ValueError: it is no duration; a bare number is refused too, for nobody can tell its unit.
    """
    if not re.match(DURATION_PATTERN, text, re.ASCII):
        raise ValueError(f"{text!r} is not {DURATION_EXAMPLE}")
    total = Fraction(0)
    last = Fraction(10**9)
    for number, unit in re.findall(r"([\d.]+)\s*([a-z]+)", text):
        length = _DURATION_UNITS[unit]
        if length >= last:
            raise ValueError(f"{text!r}: write each unit once, the larger ones first")
        total += Fraction(number) * length
        last = length
    return float(total)


def parse_clock(text: str) -> time:
    """Return a time of day, without a time zone. Raises ValueError if it is none."""
    if not re.match(CLOCK_PATTERN, text, re.ASCII):
        raise ValueError(f"{text!r} is not {CLOCK_EXAMPLE}")
    return time(int(text[:2]), int(text[3:]))


def format_size(size: int) -> str:
    """Return a size for people, with at most one decimal: ``10GiB``, ``1.5MiB``, ``512B``."""
    for power, letter in reversed(list(enumerate("KMGTP", 1))):
        # A size that would round up to the next unit is shown in it.
        if abs(size) >= 1024**power - 1024**power // 20480:
            return f"{size / 1024**power:.1f}".removesuffix(".0") + f"{letter}iB"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """Return a duration for people, to the second above a minute: ``7d``, ``1h30m``, ``2.5s``, ``250ms``."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 60:
        if 0 < seconds < 1:
            return f"{seconds * 1000:.3g}ms"
        shown = f"{seconds:.3g}"
        return "1m" if shown == "60" else f"{shown}s"
    left = round(seconds)
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_DURATION_UNITS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
