"""What a tree tells about its children: the ``lifecycle`` and ``crashes`` topics, and the log.

The counterpart of OTP's progress, supervisor and crash reports. Values are plain, so that they travel; texts are cut,
since a traceback or a message of somebody else's exception may be of any length.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from supervisor.reasons import Crash, Reason, StartFailed

if TYPE_CHECKING:
    from supervisor.incarnation import Incarnation
    from supervisor.record import ChildRecord

_log = logging.getLogger("supervisor")

TOPICS = frozenset({"crashes", "lifecycle"})
"""What every tree publishes by itself."""

_TEXT = "%s (incarnation %d): %s\n%s"

_MOST_TEXT = 1_000
_MOST_TRACEBACK = 20_000


def cut(text: str, most: int = _MOST_TEXT) -> str:
    """Shorten a text in its middle, where it is too long to pass on."""
    if len(text) <= most:
        return text
    half = (most - 20) // 2
    return f"{text[:half]} ... {text[-half:]}"


def describe(reason: Reason) -> str:
    """A reason on one short line."""
    return cut(" ".join(str(reason).split()))


def report_lifecycle(child: ChildRecord, event: str, reason: Reason | None = None, **more: Any) -> None:
    """Publish that a child started, exited, is restarting, cools down, is stuck, or made its supervisor give up."""
    if not child.runtime.stream.is_heard("lifecycle"):
        return
    child.runtime.publish(
        "lifecycle",
        {
            "event": event,
            "actor": child.id,
            "supervisor": child.supervisor_id,
            "incarnation": child.cell.incarnation,
            "reason": None if reason is None else describe(reason),
            **more,
        },
    )


def report_crash(child: ChildRecord, incarnation: Incarnation, reason: Reason, *, will_restart: bool) -> None:
    """Publish and log that an incarnation ended, or will end, for a reason that is not clean."""
    failure = reason if isinstance(reason, Crash | StartFailed) else None
    traceback = "" if failure is None else cut(failure.traceback, _MOST_TRACEBACK)
    described = describe(reason)
    if child.runtime.stream.is_heard("crashes"):
        child.runtime.publish(
            "crashes",
            {
                "actor": child.id,
                "incarnation": incarnation.number,
                "reason": described,
                "error": type(reason).__name__ if failure is None else failure.error_type,
                "traceback": traceback,
                "last_message": incarnation.last_message,
                "mailbox": len(child.cell.queue),
                "will_restart": will_restart,
            },
        )
    if _log.isEnabledFor(logging.ERROR):
        # In place of ``_log.error``, which walks the stack to find out that this is the line it is called from.
        arguments = (child.id, incarnation.number, described, traceback)
        line = report_crash.__code__.co_firstlineno
        _log.handle(_log.makeRecord(_log.name, logging.ERROR, __file__, line, _TEXT, arguments, None, "report_crash"))
