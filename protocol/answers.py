"""The memory that makes requests safe to repeat: what is under way, and the last answers.

A client whose connection broke before the answer sends the same request again, with the same id. If it is still under
way the client waits along; if it is over the answer comes from here. The actor sees it once. Two requests are the same
if id, addressee, encoding and body are: two strangers who both choose the id ``a1`` do not get each other's answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.framing import Encoding, encode_frame, encode_line
from protocol.wire import LARGEST_REPLY, NOTHING_DONE, Code, ErrorFrame, ReplyFrame, RequestFrame

Key = tuple[str, str, int, Encoding]
"""What makes two requests the same: id, addressee, the hash of the body, and the encoding that it is in: the same
bytes may mean something else in the other one."""

KEPT: Final = 1000
"""Answers remembered."""
KEPT_BYTES: Final = 16 << 20
"""Bytes of answers remembered; above it the oldest go first, whatever their number."""
OVERHEAD: Final = 500
"""Bytes that remembering an answer costs beside it, near enough."""


class Asked:
    """One request, under way or answered. The ``Answer`` that a handler is given."""

    __slots__ = ("_memory", "cancel", "data", "done", "error", "key", "waiters")

    def __init__(self, key: Key, memory: Answers) -> None:
        self.key = key
        self.done = False
        self.data = b""
        """The reply as it goes on the stream: whoever asks the same again has the same id."""
        self.error: tuple[str, str, Any] | None = None
        self.waiters: tuple[Callable[[Asked], None], ...] = ()
        """Called once with the answer, then forgotten."""
        self.cancel: Callable[[], None] = _nothing
        """Gives it up."""
        self._memory = memory

    def begun(self, cancel: Callable[[], None]) -> None:
        """Keep how to give it up, unless it was answered in the act."""
        if not self.done:
            self.cancel = cancel

    def reply(self, value: Any) -> None:
        """Answer with a value that msgspec can encode."""
        if self.done:
            return
        try:
            frame = ReplyFrame(self.key[0], value)
            data = encode_frame(frame) if self.key[3] == "msgpack" else encode_line(frame)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            self.fail(Code.HANDLER_FAILED, f"the reply of {self.key[1]} cannot be sent: {error}")
            return
        if len(data) > LARGEST_REPLY - 1024:
            self.fail(Code.REPLY_TOO_LARGE, f"the reply of {self.key[1]} is larger than {LARGEST_REPLY} bytes")
            return
        self.data = data
        self._finish()

    def fail(self, code: str, message: str, detail: Any = None) -> None:
        """Answer with a typed failure."""
        if not self.done:
            self.error = (code, message, detail)
            self._finish()

    def failure(self) -> ErrorFrame:
        """Return the answer if it is a typed failure."""
        assert self.error is not None
        code, message, detail = self.error
        return ErrorFrame(code=code, message=message, id=self.key[0], detail=detail)

    def _finish(self) -> None:
        self.done = True
        self._memory.finished(self)
        waiters, self.waiters = self.waiters, ()
        self.cancel = _nothing
        for tell in waiters:
            tell(self)


class Answers:
    """Requests under way and the last answers of one server."""

    def __init__(self, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._known: dict[Key, Asked] = {}
        self._done: deque[Asked] = deque()
        """Those of them that are over, oldest first."""
        self._bytes = 0

    def ask(self, request: RequestFrame, encoding: Encoding) -> tuple[Asked, bool]:
        """Return the request's entry, and whether it is new and has to be begun."""
        key = request.id, request.to, hash(bytes(request.body)), encoding
        known = self._known.get(key)
        if known is not None:
            return known, False
        asked = self._known[key] = Asked(key, self)
        return asked, True

    def finished(self, asked: Asked) -> None:
        """Remember an answer, unless it says that nothing was done: that may be tried again."""
        if asked.error is not None and asked.error[0] in NOTHING_DONE:
            del self._known[asked.key]
            return
        done = self._done
        done.append(asked)
        self._bytes += OVERHEAD + len(asked.data)
        while len(done) > self._kept or self._bytes > self._kept_bytes:
            oldest = done.popleft()
            del self._known[oldest.key]
            self._bytes -= OVERHEAD + len(oldest.data)


def _nothing() -> None:
    """What giving up a request that is over does."""
