"""What one client of the server may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    max_frame: int = 1 << 20
    max_connections: int = 1024
    hello_within: float = 5.0
    frame_within: float = 10.0
    """From the first byte of a message to its last."""
    write_within: float = 5.0
    """A client is given up that in this time does not take three quarters of a full socket buffer: before that Linux
    does not call it writable."""
    retry_within: float = 30.0
    """How long a request whose client has gone goes on, so that the same request sent again finds its answer."""
    in_flight: int = 128
    """Requests under way on one connection; one more is answered ``busy``."""
    subscriptions: int = 16
    events: int = 256
    """Unread events of one subscription; what comes then is dropped and counted."""
