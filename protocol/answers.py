"""The memory that makes requests safe to repeat: what is under way, and the last answers.

A client whose connection broke before the answer sends the same request again, with the same id. If it is still under
way the client waits along; if it is over the answer comes from here. The actor sees it once. Two requests are the same
if id, addressee and body are: two strangers who both choose the id ``a1`` do not get each other's answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.framing import Encoding
from protocol.wire import CODECS, LARGEST_REPLY, NOTHING_DONE, Code, ErrorFrame, ReplyFrame, RequestFrame

Key = tuple[str, str, int]

KEPT: Final = 1000
"""Answers remembered."""
KEPT_BYTES: Final = 16 << 20
"""Bytes of answers remembered; above it the oldest go first, whatever their number."""


def key_of(request: RequestFrame) -> Key:
    """Return what makes two requests the same."""
    return request.id, request.to, hash(bytes(request.body))


class Asked:
    """One request, under way or answered. The ``Answer`` that a handler is given."""

    __slots__ = ("_memory", "body", "cancel", "encoding", "error", "key", "size", "waiters")

    def __init__(self, key: Key, encoding: Encoding, memory: Answers) -> None:
        self.key = key
        self.encoding = encoding
        """Of ``body``: the one that the first asker spoke."""
        self.body: msgspec.Raw | None = None
        self.error: tuple[str, str, Any] | None = None
        self.size = 500
        """Bytes that remembering it costs, near enough."""
        self.waiters: list[Callable[[Asked], None]] = []
        """Called once with the answer, then forgotten."""
        self.cancel: Callable[[], None] = _nothing
        self._memory = memory

    @property
    def done(self) -> bool:
        return self.body is not None or self.error is not None

    def begun(self, cancel: Callable[[], None]) -> None:
        """Keep how to give it up, unless it was answered in the act."""
        if not self.done:
            self.cancel = cancel

    def reply(self, value: Any) -> None:
        """Answer with a value that msgspec can encode."""
        if self.done:
            return
        try:
            body = CODECS[self.encoding].body(value)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            self.fail(Code.HANDLER_FAILED, f"the reply of {self.key[1]} cannot be sent: {error}")
            return
        self.size = len(memoryview(body))
        if self.size > LARGEST_REPLY - 1024:
            self.fail(Code.REPLY_TOO_LARGE, f"the reply of {self.key[1]} is larger than {LARGEST_REPLY} bytes")
            return
        self.body = body
        self._finish()

    def fail(self, code: str, message: str, detail: Any = None) -> None:
        """Answer with a typed failure."""
        if not self.done:
            self.error = (code, message, detail)
            self._finish()

    def frame(self, id: str, encoding: Encoding) -> ReplyFrame | ErrorFrame:
        """Return the answer as it goes to a client of this encoding."""
        if self.body is None:
            assert self.error is not None
            code, message, detail = self.error
            return ErrorFrame(code=code, message=message, id=id, detail=detail)
        body = self.body
        if encoding != self.encoding:
            body = CODECS[encoding].body(CODECS[self.encoding].decode_body(body, Any))
        return ReplyFrame(id=id, body=body)

    def _finish(self) -> None:
        self._memory.finished(self)
        waiters, self.waiters = self.waiters, []
        self.cancel = _nothing
        for tell in waiters:
            tell(self)


class Answers:
    """Requests under way and the last answers of one server."""

    def __init__(self, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._open: dict[Key, Asked] = {}
        self._done: OrderedDict[Key, Asked] = OrderedDict()
        self._bytes = 0

    def ask(self, request: RequestFrame, encoding: Encoding) -> tuple[Asked, bool]:
        """Return the request's entry, and whether it is new and has to be begun."""
        key = key_of(request)
        known = self._open.get(key) or self._done.get(key)
        if known is not None:
            return known, False
        asked = self._open[key] = Asked(key, encoding, self)
        return asked, True

    def finished(self, asked: Asked) -> None:
        """Remember an answer, unless it says that nothing was done: that may be tried again."""
        self._open.pop(asked.key, None)
        if asked.error is not None and asked.error[0] in NOTHING_DONE:
            return
        self._done[asked.key] = asked
        self._bytes += asked.size
        while len(self._done) > self._kept or self._bytes > self._kept_bytes:
            _, oldest = self._done.popitem(last=False)
            self._bytes -= oldest.size


def _nothing() -> None:
    """What giving up a request that is over does."""
