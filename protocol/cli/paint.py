"""How things look in a terminal: colours, sizes, durations, bars. Imports next to nothing: ``status`` passes here."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # without importing typing; type checkers know the name
if TYPE_CHECKING:
    from typing import TextIO

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_EIGHTHS = " ▏▎▍▌▋▊▉"


def colours(stream: TextIO) -> bool:
    """True if the stream is a terminal and the user did not say ``NO_COLOR`` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """Return the text in the given styles where the stream (stdout) shows colours, else as it is."""
    if not text or not colours(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def clean(text: str) -> str:
    """Return text that cannot command the terminal: control characters and lone surrogates shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def size(count: float) -> str:
    """Return a number of bytes as people say it, in powers of 1024: ``9.8 GiB``."""
    for unit in _UNITS[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """Return a span as people say it, in its two greatest units: ``4 s``, ``2 m 05 s``, ``3 h 10 m``, ``6 d 4 h``."""
    whole = max(0, round(seconds))
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    if hours:
        return f"{hours} h {m:02d} m"
    return f"{m} m {s:02d} s" if minutes else f"{s} s"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 file`` or ``3,000 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def bar(share: float, width: int = 28) -> str:
    """Return a bar filled to ``share`` (0 to 1), exact to an eighth of a column."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    return drawn + "·" * (width - len(drawn))
