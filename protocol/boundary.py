"""The one place where any exception of foreign code is caught: at the edge of an incarnation, to become its reason.

It is a context manager, not an ``except`` clause, and used around nothing but the code of an actor. What it lets
through is what is not the actor's to decide: Ctrl-C, a closed coroutine, and the end of the whole event loop.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType

import anyio

_log = logging.getLogger("supervisor")


class Boundary:
    """``with CancelScope() as scope, Boundary(scope) as edge: ...`` and afterwards ``edge.error``.

    A cancellation is the scope's only if the scope says that it was cancelled. It ends here, not in the scope itself:
    on asyncio that would let it out again if a stranger cancelled the task at the same time, past all that follows. Any
    other one is foreign (an actor that awaited somebody else's cancelled future) and counts as an error:
    thejerf/suture#77 is what happens if the type of the exception is trusted instead.
    """

    __slots__ = ("_scope", "cancelled", "error")

    def __init__(self, scope: anyio.CancelScope | None) -> None:
        self._scope = scope
        self.error: BaseException | None = None
        self.cancelled = False
        """Whether the cancellation of the scope cut it short."""

    def __enter__(self) -> Boundary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):  # no cancellation of either loop is one, nor a group that holds any
            self.error = error
            return True
        if error is None or _holds(error, KeyboardInterrupt, GeneratorExit):
            return False
        if _is_only(error, _cancelled()):
            if self._scope is not None and self._scope.cancel_called:
                self.cancelled = True
                return True
            if anyio.current_effective_deadline() == float("-inf"):
                return False  # the whole event loop is being taken down around us
        self.error = error
        return True


class Logged:
    """``with Logged(text): ...``: an error is logged, and that is all. It keeps no state, so one serves any number."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        caught = Boundary(None).__exit__(kind, error, traceback)
        if caught:
            _log.error(self._text, exc_info=error)
        return caught


def _cancelled() -> type[BaseException]:
    try:
        return anyio.get_cancelled_exc_class()
    except anyio.NoEventLoopError:  # in a callback of a plain asyncio program: anyio sees the loop of a task only
        return asyncio.CancelledError


def _holds(error: BaseException, *kinds: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kinds) is not None
    return isinstance(error, kinds)


def _is_only(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether it is an error of this kind or a group of nothing else, such as a cancelled nursery of trio raises."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[1] is None
    return isinstance(error, kind)
