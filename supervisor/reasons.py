"""Why an incarnation of an actor ended: the exit reasons of OTP, as values.

Semantics: Erlang's exit reasons ``normal``, ``shutdown``, ``{shutdown, Detail}`` and ``killed``; everything else is an
error. ``supervisor:do_restart/3`` treats the first two as clean for a transient child, and so does this library.
Reasons travel between processes, so each is a tagged ``msgspec.Struct``; the live exception object of a crash stays
behind.
"""

from __future__ import annotations

import msgspec

from protocol.boundary import Boundary
from supervisor.tracebacks import traceback_of


class Normal(msgspec.Struct, frozen=True, tag="normal"):
    """The actor decided by itself that its work is done."""

    def __str__(self) -> str:
        return "normal"


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """The actor was asked to stop, or its supervisor gave up. ``detail`` says why, for people."""

    detail: str = ""

    def __str__(self) -> str:
        return f"shutdown: {self.detail}" if self.detail else "shutdown"


class Killed(msgspec.Struct, frozen=True, tag="killed"):
    """Ended from outside, without being asked or after its time to stop had passed.

    ``signal`` is the number of the signal by which somebody else ended a process; ``None`` where its supervisor did,
    and for a task, which is cancelled.
    """

    signal: int | None = None

    def __str__(self) -> str:
        return "killed" if self.signal is None else f"killed by signal {self.signal}"


class Crash(msgspec.Struct, frozen=True, tag="crash"):
    """A handler or a spawned task raised.

    ``error`` is the exception where it can be had: in its own process, and without its live traceback.
    """

    error_type: str
    text: str
    traceback: str = ""
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"crash: {self.error_type}: {self.text}"


class StartFailed(msgspec.Struct, frozen=True, tag="start_failed"):
    """The actor could not be made, or its ``on_start`` raised, or its start limit passed."""

    error_type: str
    text: str
    traceback: str = ""
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"start failed: {self.error_type}: {self.text}"


class Timeout(msgspec.Struct, frozen=True, tag="timeout"):
    """Ended because it made no progress within its liveness limit.

    ``silence``: for how many seconds, on the clock of its tree.
    """

    detail: str
    silence: float = 0.0

    def __str__(self) -> str:
        return f"timeout: {self.detail}"


Reason = Normal | Shutdown | Killed | Crash | StartFailed | Timeout


def is_clean(reason: Reason) -> bool:
    """True for the reasons after which a transient child is not restarted: ``Normal`` and ``Shutdown``."""
    return isinstance(reason, Normal | Shutdown)


def unwrapped(error: BaseException) -> BaseException:
    """Return the only leaf of an exception group, or the error itself: a group of one says nothing by being a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def text_of(error: BaseException) -> str:
    """Return what an error says, also of one that fails to say it."""
    with Boundary(None):
        return str(error)
    return f"<a {type(error).__name__} that cannot be shown>"


def crash_of(error: BaseException) -> Crash:
    """Describe an exception as a crash, and let go of its frames (see :func:`_let_go_of_frames`)."""
    leaf = unwrapped(error)
    crash = Crash(type(leaf).__name__, text_of(leaf), traceback_of(leaf if leaf.__traceback__ else error), leaf)
    _let_go_of_frames(error)
    return crash


def and_then(reason: Reason, error: BaseException) -> Reason:
    """Describe the end of one that failed again in its clean-up. The first error stays the reason, if it was one."""
    second = crash_of(error)
    if is_clean(reason) or not isinstance(reason, Crash):
        return second
    both = f"{reason.traceback}\nIn the clean-up after it another error occurred:\n\n{second.traceback}"
    return Crash(reason.error_type, reason.text, both, reason.error)


def start_failure_of(error: BaseException) -> StartFailed:
    """Describe an exception as a failed start."""
    crash = crash_of(error)
    return StartFailed(crash.error_type, crash.text, crash.traceback, crash.error)


def _let_go_of_frames(error: BaseException) -> None:
    """Take the live traceback off an error and its causes; the text of it is kept.

    Its frames hold every local variable of the dead: sockets, files, locks. Held by the reason, or by the cycle of a
    frame and the error in it, they would still be open when the next incarnation wants the same port.
    """
    error.__traceback__ = None
    if error.__cause__ is None and error.__context__ is None and not isinstance(error, BaseExceptionGroup):
        return
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
            if isinstance(one, BaseExceptionGroup):
                waiting += one.exceptions
