"""What a client has said and the server has not looked at yet: complete messages, and where its stream went wrong."""

from __future__ import annotations

from collections import deque
from typing import Final

from protocol.framing import Decoder, FrameError, decoder_for, detect
from protocol.wire import CODECS, Code

PIECE: Final = 1 << 12
"""Bytes that are cut into messages at once."""

SMALL_PIECE: Final = 1 << 9
"""The same while others speak too."""


class Hangup(Exception):
    """The connection ends here, and the client is told why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Hearing:
    """One client's stream, cut into messages piece by piece: one read may bring tens of thousands of them."""

    def __init__(self, max_frame: int) -> None:
        self._max_frame = max_frame
        self._decoder: Decoder | None = None
        self._pieces: deque[bytes] = deque()
        self._messages: deque[bytes] = deque()
        self._fault: Hangup | None = None
        self.codec = CODECS["msgpack"]
        """Of the encoding that the client chose with its first byte."""

    @property
    def begun(self) -> bool:
        """Whether anything has come at all."""
        return self._decoder is not None

    @property
    def partial(self) -> bool:
        """Whether a message was begun whose end has not come yet."""
        return self._decoder is not None and self._decoder.partial

    @property
    def more(self) -> bool:
        """Whether there is something left to be looked at."""
        return bool(self._messages or self._pieces or self._fault)

    def take(self, data: bytes, piece: int = PIECE) -> None:
        """Keep what has come, to be cut by so many bytes at once."""
        if self._decoder is None:
            self.codec = CODECS[detect(data)]
            self._decoder = decoder_for(self.codec.encoding, self._max_frame)
        if len(data) <= piece:
            self._pieces.append(data)
        else:
            self._pieces.extend(data[start : start + piece] for start in range(0, len(data), piece))

    def next(self) -> bytes | None:
        """Return the next complete message; none if the rest of it has not come yet.

        Raises:
            Hangup: nothing can be read after the messages before.
        """
        if not self._messages and not self._cut():
            return None
        return self._messages.popleft()

    def _cut(self) -> bool:
        """Cut messages out of the next pieces until there is one; False if there is none."""
        assert self._decoder is not None, "nothing has come yet"
        while not self._messages:
            if self._fault is not None:
                raise self._fault
            if not self._pieces:
                return False
            try:
                self._messages.extend(self._decoder.feed(self._pieces.popleft()))
            except FrameError as error:
                self._messages.extend(error.before)
                self._pieces.clear()
                self._fault = Hangup(Code.BAD_FRAME, str(error))
        return True
