"""The text of a traceback, at once where the same frames have been shown before: a crash seldom comes alone.

For each frame the standard library parses a line of source, to underline what failed; that is a third of a restart.
"""

from __future__ import annotations

import traceback
from types import CodeType

_MOST_FRAMES = 64
"""A deeper traceback is most likely a recursion, which the standard library shortens."""
_MOST_KNOWN = 512

_known: dict[tuple[int, int], tuple[CodeType, str]] = {}
"""By the identity of the code, which the entry keeps alive, and the instruction in it."""


def traceback_of(error: BaseException) -> str:
    """Return what ``traceback.format_exception`` says of an error, with its causes."""
    is_plain = error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    lines = _frames_of(error) if is_plain and not isinstance(error, BaseExceptionGroup) else None
    if lines is None:
        return "".join(traceback.format_exception(error))
    return "".join([*lines, *traceback.format_exception_only(error)])


def _frames_of(error: BaseException) -> list[str] | None:
    """Return the lines of the frames, one after another; None where they are more than that."""
    step = error.__traceback__
    if step is None:
        return None
    lines = ["Traceback (most recent call last):\n"]
    while step is not None:
        code = step.tb_frame.f_code
        place = (id(code), step.tb_lasti)
        known = _known.get(place)
        if known is None:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            known = _known[place] = (code, "".join(traceback.format_tb(step, limit=1)))
        if known[1] == lines[-1] or len(lines) > _MOST_FRAMES:
            return None
        lines.append(known[1])
        step = step.tb_next
    return lines
