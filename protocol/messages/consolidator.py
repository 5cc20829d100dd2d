"""What can be said to Consolidator, and what it answers."""

from __future__ import annotations

from datetime import datetime

from protocol.messages.common import Record, Request
from protocol.messages.trainer import ConsolidationResult


class ConsolidateNow(Request[ConsolidationResult], frozen=True):
    """Consolidate whatever the date, as soon as the lease is granted; answered when it is over."""


class ConsolidatorView(Record, frozen=True):
    """Where the night's work stands."""

    running: bool
    next_at: datetime | None
    last_at: datetime | None
    last_outcome: str | None
    last_reason: str | None


class GetConsolidator(Request[ConsolidatorView], frozen=True):
    """When it runs next, and how it went last."""
