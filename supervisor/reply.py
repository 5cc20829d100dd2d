"""The two ends of a call: the caller's :class:`Pending` and the handler's :class:`Reply`.

A call is settled exactly once, by whichever comes first: an answer, an error, its deadline, the end of the incarnation
that holds it, or the caller leaving. What comes later is dropped (OTP 24's process aliases: a late reply never reaches
a later call).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from protocol.boundary import Logged
from supervisor.errors import CallFailed, CallingSelf, CallTimeout, HandlerFailed, Refused
from supervisor.reasons import text_of
from supervisor.tracebacks import traceback_of

if TYPE_CHECKING:
    from protocol.backend import Backend, Waiter
    from protocol.deadlines import Deadlines
    from protocol.messages.common import Request
    from supervisor.mailbox import Cell

R = TypeVar("R")

_logged = Logged("a callback of a call failed")
"""A fault of the caller's must not be the end of whoever answers."""


class Pending(Generic[R]):
    """A call under way, seen by the caller: ``await`` it, or ask for a callback with :meth:`on_done`.

    Cancelling the awaiting task gives up the call, so the handler's token is ``done``. Only one task may await it.
    """

    __slots__ = (
        "_backend",
        "_callbacks",
        "_holder",
        "_value",
        "asked",
        "deadline",
        "done",
        "error",
        "message",
        "queued_in",
        "to",
        "waiter",
    )

    def __init__(self, to: str, message: Request[R], timeout: float, deadlines: Deadlines, backend: Backend) -> None:
        self.to = to
        """The name of the actor called."""
        self.message = message
        self.deadline = deadlines.monotonic() + timeout
        """On the tree's monotonic clock, in seconds."""
        self.done = False
        """True once there is a value or an error."""
        self._backend = backend
        self._value: R | None = None
        self.error: Exception | None = None
        """Why there is no value; ``None`` while there may be one."""
        self.waiter: Waiter | None = None
        """Of the one task that awaits it."""
        self._callbacks: tuple[Callable[[Pending[R]], None], ...] = ()
        self._holder: set[Pending[Any]] | None = None
        self.asked: Cell | None = None
        """Set where a task might await this that serves the actor itself."""
        self.queued_in: Cell | None = None
        """The mailbox that it lies in: settled there, it takes up room for nothing."""
        deadlines.add(self)

    def result(self) -> R:
        """Return the value or raise the error of a call that is done."""
        if not self.done:
            raise RuntimeError("the call is not done yet")
        if self.error is not None:
            raise self.error
        return cast("R", self._value)

    async def wait(self) -> R:
        """What ``await`` does, for the library itself: nobody else has this call yet, and no handler asks itself."""
        if self.done:
            if self.error is not None:
                # Whoever tries again and again must not starve the very restart that it waits for.
                await self._backend.checkpoint()
            return self.result()
        self.waiter = waiter = self._backend.waiter()
        try:
            await waiter
        finally:
            if not self.done:  # the awaiting task was cancelled
                self.cancel()
        if self.error is not None:
            raise self.error
        return cast("R", self._value)

    def __await__(self) -> Generator[Any, Any, R]:
        if self.asked is not None and self.asked.serving_task is self._backend.current_task():
            self.settle(None, CallingSelf(f"{self.to} awaits its own answer in its handler"))
        if not self.done and self.waiter is not None:
            raise RuntimeError("another task awaits this call")
        return self.wait().__await__()

    def on_done(self, callback: Callable[[Pending[R]], None]) -> None:
        """Call back once, on the event loop, as soon as the call is settled; at once if it is.

        It should not raise: nobody is there to be told, so an error is only logged.
        """
        if self.done:
            callback(self)
        else:
            self._callbacks += (callback,)

    def cancel(self) -> None:
        """Give the call up: the handler's token is done, and what it says is dropped. Harmless afterwards."""
        self.settle(None, CallFailed(f"the call to {self.to} was given up by its caller"))

    def settle(self, value: R | None, error: Exception | None = None) -> bool:
        """Settle the call; False if it was already. For those who serve calls: actors, links, sockets."""
        if self.done:
            return False
        self.done = True
        self._value = value
        self.error = error
        if self.queued_in is not None:
            self.queued_in.abandoned = True
            self.queued_in = None
        if self._holder is not None:
            self._holder.discard(self)
            self._holder = None
        if self.waiter is not None:
            self._backend.wake(self.waiter)
        if self._callbacks:
            self._call_back()
        return True

    def held_by(self, holder: set[Pending[Any]]) -> None:
        """Keep this open call in ``holder`` until it is settled, so that whoever owns the set can fail what is left."""
        self._holder = holder
        holder.add(self)

    def expire(self) -> None:
        """Settle the call because its deadline has come; for :class:`~supervisor.deadlines.Deadlines`."""
        self.settle(None, CallTimeout(f"{self.to} did not answer {type(self.message).__name__} in time"))

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            with _logged:
                callback(self)


class Reply(Generic[R]):
    """The handler's token of one call: answer it now or later, once. Answering one that is done does nothing.

    A request that was cast has no caller; its token (``pending`` is ``None``) is done from the beginning.
    """

    __slots__ = ("_pending",)

    def __init__(self, pending: Pending[R] | None) -> None:
        self._pending = pending

    @property
    def done(self) -> bool:
        """True once it was used, its deadline passed, its incarnation ended, or its caller left."""
        return self._pending is None or self._pending.done

    @property
    def deadline(self) -> float:
        """When the caller stops waiting, in seconds on the tree's monotonic clock; long ago where there is none."""
        return float("-inf") if self._pending is None else self._pending.deadline

    def send(self, value: R) -> None:
        """Answer with a value."""
        if self._pending is not None:
            self._pending.settle(value)

    def fail(self, error: Exception) -> None:
        """Answer with an error; one that is no :class:`CallFailed` reaches the caller as :class:`HandlerFailed`."""
        if self._pending is not None:
            self._pending.settle(None, as_call_failure(error))


def as_call_failure(error: BaseException) -> CallFailed:
    """Return what a caller is told about an error that a handler gave as its answer."""
    if isinstance(error, CallFailed):
        return error
    if isinstance(error, Refused):
        return HandlerFailed(type(error).__name__, str(error), code=error.code)
    return HandlerFailed(type(error).__name__, text_of(error), traceback_of(error))
