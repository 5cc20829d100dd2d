"""What can go wrong for the user of the library, as exception types.

Three families: :class:`CallFailed` (a call got no value; the split follows ``gen_server:call/3`` and kameo's
``SendError``), :class:`SupervisorError` (a request to a supervisor was refused; OTP's ``{error, already_present}`` and
kin), and the errors of starting and stopping a whole tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.reasons import Reason


class CallFailed(Exception):
    """A call was not answered with a value. Its subclass says which of the possible fates it met."""


class NotRunning(CallFailed):
    """Nobody serves this name: it never existed, has not started yet, or has ended for good. Nothing was done."""


class Restarting(CallFailed):
    """The actor is between two incarnations, or went down while the call waited. Worth trying again."""


class Stopping(CallFailed):
    """The actor is stopping and takes no new work, or stopped while the call waited."""


class MailboxFull(CallFailed):
    """The mailbox of the actor is full. Nothing was done; also raised by ``cast``."""


class CallTimeout(CallFailed):
    """No answer within the limit. The outcome is unknown; a late answer is dropped."""


class ConnectionLost(CallFailed):
    """The link to the process of the actor broke while the call waited. The outcome is unknown."""


class CallingSelf(CallFailed):
    """An actor called itself from one of its own handlers, which could never end."""


class HandlerFailed(CallFailed):
    """The handler answered with an error: it crashed (the actor with it) or refused.

    ``code`` is set for a refusal (see :class:`Refused`), and is ``None`` for a crash. ``traceback`` is the one of the
    actor, as text, also from another process.
    """

    def __init__(self, error_type: str, text: str, traceback: str = "", code: str | None = None) -> None:
        super().__init__(f"{error_type}: {text}" if code is None else text)
        self.error_type = error_type
        self.text = text
        self.traceback = traceback
        self.code = code


class Refused(Exception):
    """Raise it (or a subclass) in a handler to answer the caller with an error and stay alive.

    A refusal is an answer. ``code`` is one word for programs, the text is for people.
    """

    code = "refused"

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        if code is not None:
            self.code = code


class NoSuchActor(Refused):
    """Introspection: the tree knows no such name, or it is a supervisor where an actor is meant."""

    code = "no_such_actor"


class BootRefused(Exception):
    """Raised in the ``on_start`` of a child whose give-up is ``Escalate``: the whole boot is refused, without retry.

    The binary prints ``message`` on one line of stderr, without a traceback, and exits with ``exit_code``.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class SpecError(ValueError):
    """A child or supervisor specification that makes no sense. Raised before anything starts."""


class TreeStartFailed(Exception):
    """The tree did not come up. Whatever had started has been stopped, in reverse order."""

    def __init__(self, name: str, reason: Reason) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Stuck:
    """An actor that did not end after it was asked, given its time, and cancelled; and where it hangs."""

    name: str
    stack: str


class StopIncomplete(Exception):
    """Some actors would not end. They are named with their stacks; no new incarnation starts beside them."""

    def __init__(self, stuck: Sequence[Stuck]) -> None:
        super().__init__("these actors would not stop: " + ", ".join(one.name for one in stuck))
        self.stuck = tuple(stuck)

    def __str__(self) -> str:
        return "\n".join([str(self.args[0]), *(f"--- {one.name}\n{one.stack.rstrip()}" for one in self.stuck)])


class SupervisorError(Exception):
    """A request to a supervisor was refused."""


class AlreadyStarted(SupervisorError):
    """``start_child``: a child of this id is running."""


class AlreadyPresent(SupervisorError):
    """``start_child``: a child of this id is known, though not running."""


class NoSuchChild(SupervisorError):
    """The supervisor knows no child of this id."""


class ChildRunning(SupervisorError):
    """``restart_child`` or ``delete_child``: the child is running."""


class ChildRestarting(SupervisorError):
    """``restart_child`` or ``delete_child``: the supervisor is already busy restarting the child."""


class TooManyChildren(SupervisorError):
    """``start_child``: the supervisor has as many children as its ``max_children`` allows."""


class ChildStartFailed(SupervisorError):
    """``start_child`` or ``restart_child``: the child was started and failed; ``reason`` says why."""

    def __init__(self, name: str, reason: Reason) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class SupervisorStopping(SupervisorError):
    """The supervisor is stopping, or has ended, and starts nothing any more."""
