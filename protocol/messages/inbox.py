"""What can be said to InboxWatcher."""

from __future__ import annotations

from protocol.messages.common import Done, Message, Request


class QuietScan(Message, frozen=True):
    """Scan the inbox now; answer QueueManager with ``queue.QuietReport(request, quiet)``."""

    request: int


class Rescan(Request[Done], frozen=True):
    """Look at the inbox now. Answered when everything that had settled by then has been handed over."""
