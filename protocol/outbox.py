"""What waits to be written to one client. Replies are as few as requests; events are bounded, then counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protocol.framing import Encoding, encode
from protocol.messages.common import TailEvent
from protocol.wire import ErrorFrame, EventFrame, LaggedFrame, ServerFrame

CHUNK: Final = 1 << 16
"""Bytes that are joined into one write."""

CROWDED: Final = 256
"""Unwritten messages above which nothing more is heard from this client: it must take its answers first."""

CROWDED_BYTES: Final = 1 << 20
"""Unwritten bytes above which it is the same."""

OVERFULL: Final = 2 * 64 << 20
"""Bytes above which the client is given up, and nothing more is put together for it."""

FEED: Final = 1 << 20
"""Bytes of unread events above which a subscription takes no further one: only their number is bounded otherwise."""

UNSPEAKABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding raises: of half a character (a file's name that is not UTF-8), a huge number, a foreign type."""


@dataclass(slots=True)
class Feed:
    """One subscription's share of an outbox."""

    id: str
    bound: int
    waiting: int = 0
    missed: int = 0
    bytes: int = 0

    @property
    def full(self) -> bool:
        return self.waiting >= self.bound or self.bytes > FEED


class Outbox:
    """Encoded messages in order. Putting never waits; ``filled`` is called each time, and whoever writes takes."""

    def __init__(self, filled: Callable[[], None]) -> None:
        self.encoding: Encoding = "msgpack"
        self.crowded = False
        """The client takes less than it asks for: hear nothing more from it until it takes its answers."""
        self.overfull = False
        """The client takes nothing and has too much coming: close the connection."""
        self._entries: deque[tuple[bytes, Feed | None]] = deque()
        self._bytes = 0
        self._filled = filled

    def put(self, frame: ServerFrame, feed: Feed | None = None) -> None:
        """Add a message at the end. One that cannot be said in this encoding is replaced by one that tells so."""
        if self.overfull:
            return
        try:
            data = encode(frame, self.encoding)
        except UNSPEAKABLE as error:
            data = encode(_instead(frame, error), self.encoding)
        self.put_encoded(data, feed)
        self._filled()

    def put_encoded(self, data: bytes, feed: Feed | None = None) -> None:
        """Add a message that is encoded already; ``filled`` is not called."""
        if self.overfull:
            return
        self._entries.append((data, feed))
        self._bytes += len(data)
        if self._bytes > CROWDED_BYTES or len(self._entries) > CROWDED:
            self.crowded = True
            self.overfull = self._bytes > OVERFULL
        if feed is not None:
            feed.waiting += 1
            feed.bytes += len(data)

    def offer(self, event: TailEvent, feed: Feed) -> None:
        """Add an event, or count it as missed while the subscription's bound is reached."""
        if feed.full:
            feed.missed += 1
            return
        self.put(EventFrame(id=feed.id, topic=event.topic, at=event.at, data=event.data), feed)

    def missed(self, count: int, feed: Feed) -> None:
        """Count events that were lost before they came here."""
        feed.missed += count
        self._tell_missed(feed)

    def take(self) -> bytes:
        """Return the next bytes to write, several messages joined; empty if there are none."""
        entries = self._entries
        if len(entries) == 1 and entries[0][1] is None:
            self._bytes = 0
            self.crowded = False
            return entries.popleft()[0]
        joined: list[bytes] = []
        size = 0
        while entries and size < CHUNK:
            data, feed = entries.popleft()
            joined.append(data)
            size += len(data)
            if feed is not None:
                feed.waiting -= 1
                feed.bytes -= len(data)
                self._tell_missed(feed)
        self._bytes -= size
        self.crowded = len(entries) > CROWDED or self._bytes > CROWDED_BYTES
        return b"".join(joined)

    def _tell_missed(self, feed: Feed) -> None:
        """Say how many events are missing at this place, as soon as there is room for it."""
        if feed.missed and not feed.full:
            missed, feed.missed = feed.missed, 0
            self.put(LaggedFrame(id=feed.id, missed=missed), feed)


def _instead(frame: ServerFrame, error: Exception) -> ServerFrame:
    """Return what can be said of a frame that cannot be encoded. Its text may be a file's name or an exception's."""
    if isinstance(frame, EventFrame):
        told = {"event": "unreadable", "reason": _sayable(str(error))}
        return EventFrame(id=frame.id, topic=frame.topic, at=frame.at, data=told)
    if isinstance(frame, ErrorFrame):
        return ErrorFrame(code=frame.code, message=_sayable(frame.message), id=frame.id)
    raise error


def _sayable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
