"""The text of a traceback, at once where the same frames have been shown before: a crash seldom comes alone.

For each frame the standard library parses a line of source, to underline what failed; that is a third of a restart.
"""

from __future__ import annotations

import traceback
from types import CodeType

_MOST_FRAMES = 64
"""A deeper traceback is most likely a recursion, which the standard library shortens."""
_MOST_KNOWN = 512

_SAYS_MORE = (SyntaxError, NameError, AttributeError, ImportError)
"""Errors to which the standard library adds the place or what may have been meant."""

_known: dict[tuple[int, int], tuple[CodeType, str]] = {}
"""By the identity of the code, which the entry keeps alive, and the instruction in it."""


def traceback_of(error: BaseException) -> str:
    """Return what ``traceback.format_exception`` says of an error, with its causes."""
    is_plain = error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    lines = _frames_of(error) if is_plain and not isinstance(error, BaseExceptionGroup) else None
    if lines is None:
        return "".join(traceback.format_exception(error))
    return "".join([*lines, *_last_lines_of(error)])


def _last_lines_of(error: BaseException) -> list[str]:
    """Return what the traceback ends with: the kind of error, and what it says."""
    kind, said = type(error), error.args
    says_just_that = kind.__str__ is BaseException.__str__ and len(said) == 1 and type(said[0]) is str
    if not says_just_that or isinstance(error, _SAYS_MORE) or getattr(error, "__notes__", None) is not None:
        return traceback.format_exception_only(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("__main__", "builtins") else f"{kind.__module__}.{kind.__qualname__}"
    )
    return [f"{name}: {said[0]}\n" if said[0] else f"{name}\n"]


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
