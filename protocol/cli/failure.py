"""How a command ends when it does not succeed: what happened, where, and what to do next."""

from __future__ import annotations

TYPE_CHECKING = False  # without importing typing; type checkers know the name
if TYPE_CHECKING:
    from protocol.cli.place import Place
    from protocol.quick import Failed

FAILED = 1
MISUSE = 2
NO_DAEMON = 3
INTERRUPTED = 130
BAD_CONFIG = 78
"""``EX_CONFIG`` of ``sysexits.h``: a service manager need not start again what is configured wrongly."""

_AGAIN = "say it again in a moment; what the daemon does: stokehold status"
_LOOK = "see what became of it: stokehold status, stokehold logs"
_NEXT = {
    "not_running": "why: stokehold tree, and stokehold logs",
    "restarting": _AGAIN,
    "mailbox_full": _AGAIN,
    "busy": _AGAIN,
    "full": "too many clients are connected; close some, or raise control.max_connections",
    "stopping": "it is on its way out; afterwards: stokehold run",
    "timed_out": _LOOK,
    "connection_lost": _LOOK,
    "reply_too_large": "ask for less",
    "handler_failed": "this is a fault in stokehold; its traceback: stokehold logs",
    "not_allowed": "only the owner of the daemon and root may command it",
    "incompatible": "run the command line of the same version as the daemon",
    "no_such_actor": "see: stokehold tree",
    "not_restarted": "see: stokehold tree, and stokehold logs",
    "unknown_actor": "is the daemon of the same version? See: stokehold tree",
}


class CommandFailed(Exception):
    """Ends the command. ``main`` prints ``what`` and, below it, what to do ``next``, and exits with ``code``."""

    def __init__(self, what: str, next: str = "", code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.next = next
        self.code = code


def no_daemon(place: Place) -> CommandFailed:
    """Nobody listens at this socket."""
    if place.home is None:
        start = "start the program whose tree it is; the daemon's: stokehold run"
        return CommandFailed(f"nobody answers at {place.socket}", start, NO_DAEMON)
    start = f"start one with: stokehold run --home {place.home}"
    return CommandFailed(f"no daemon answers at {place.socket}", start, NO_DAEMON)


def refused(error: Failed, place: Place) -> CommandFailed:
    """Whoever is there answered with a failure, or the connection broke. An actor's own refusal says what to do."""
    next = _NEXT.get(error.code, "")
    if place.home is None and "stokehold" in next:
        next = f"see: {place.command('tree')}"  # it may be anybody's tree, which has neither a status nor a log
    return CommandFailed(error.message, next)
