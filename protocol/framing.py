"""How messages are cut out of a byte stream: length-prefixed msgpack, or one JSON object a line.

A frame is a 4-byte big-endian length followed by that many bytes of msgpack. A stream whose first byte is ``{`` is
newline-delimited JSON instead; the two cannot be confused, since a frame would have to be 1.9 GiB long to begin so.
Both decoders are plain state machines without input or output, so they serve sockets and socketpairs, blocking or not.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal, Protocol

import msgspec

Encoding = Literal["msgpack", "json"]

HEADER = struct.Struct(">I")
_HEADER_SIZE: Final = HEADER.size
_length_at = HEADER.unpack_from
MAX_FRAME = 1 << 20
"""Default limit of one frame, in bytes."""
LARGEST_LIMIT = 1 << 30
"""No limit may be set above this, so that the first byte of a frame is never ``{``."""

_msgpack = msgspec.msgpack.Encoder()
_json = msgspec.json.Encoder()


class FrameError(Exception):
    """The stream cannot be read on: its position is lost. Close it.

    ``before`` holds the complete payloads that preceded the fault in the same :meth:`FrameDecoder.feed`.
    """

    def __init__(self, text: str, before: list[bytes]) -> None:
        super().__init__(text)
        self.before = before


class Decoder(Protocol):
    """What both decoders do."""

    @property
    def partial(self) -> bool:
        """Whether the beginning of a payload is held and its end has not come yet."""
        ...

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take more of the stream and return the payloads that it completes, in order."""
        ...


def detect(first: bytes) -> Encoding:
    """Return the encoding of a stream that begins with these bytes (at least one)."""
    return "json" if first[:1] == b"{" else "msgpack"


def decoder_for(encoding: Encoding, max_frame: int = MAX_FRAME) -> Decoder:
    """Return a fresh decoder for one stream of this encoding."""
    return LineDecoder(max_frame) if encoding == "json" else FrameDecoder(max_frame)


def encode_frame(obj: Any) -> bytes:
    """Return the frame of a msgspec struct or of plain data."""
    payload = _msgpack.encode(obj)
    return HEADER.pack(len(payload)) + payload


def encode_line(obj: Any) -> bytes:
    """Return the JSON line of a msgspec struct or of plain data, with its line break."""
    return _json.encode(obj) + b"\n"


def encode(obj: Any, encoding: Encoding) -> bytes:
    """Return the bytes of one message as they go on a stream of this encoding."""
    return encode_line(obj) if encoding == "json" else encode_frame(obj)


class FrameDecoder:
    """Cuts length-prefixed payloads out of a stream. Holds at most ``max_frame`` bytes and one chunk more."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max = _checked(max_frame)
        self._buffer = bytearray()
        self._wanted = 0
        """So long the buffer has to be for the payload that it begins to be complete; 0 while its length is unknown."""

    @property
    def partial(self) -> bool:
        """Whether the beginning of a frame is held and its end has not come yet."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take more of the stream and return the payloads that it completes, in order.

        Raises:
            FrameError: a length of zero or over the limit. It is raised at the header, before anything is kept.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._wanted:
                return []
            data = bytes(buffer)
            buffer.clear()
        elif not isinstance(data, bytes):
            data = bytes(data)
        payloads: list[bytes] = []
        start, end = 0, len(data)
        self._wanted = 0
        while end - start >= _HEADER_SIZE:
            (length,) = _length_at(data, start)
            if not 0 < length <= self._max:
                what = "a frame of length 0" if not length else f"a frame of {length} bytes; the limit is {self._max}"
                raise FrameError(what, payloads)
            first = start + _HEADER_SIZE
            if first + length > end:
                self._wanted = _HEADER_SIZE + length
                break
            start = first + length
            payloads.append(data[first:start])
        if start < end:
            buffer += data[start:] if start else data
        return payloads


class LineDecoder:
    """Cuts JSON lines out of a stream; blank lines between them are skipped. The twin of :class:`FrameDecoder`."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max = _checked(max_frame)
        self._buffer = bytearray()
        self._searched = 0

    @property
    def partial(self) -> bool:
        """Whether the beginning of a line is held and its end has not come yet."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take more of the stream and return the lines that it completes, without their ends, in order.

        Raises:
            FrameError: a line is longer than the limit, whether or not its end has come.
        """
        buffer = self._buffer
        buffer += data
        lines: list[bytes] = []
        start = 0
        while (end := buffer.find(b"\n", max(start, self._searched))) >= 0:
            if end - start > self._max:
                raise self._too_long(lines)
            if line := bytes(buffer[start:end]).strip():
                lines.append(line)
            start = end + 1
        if len(buffer) - start > self._max:
            raise self._too_long(lines)
        del buffer[:start]
        self._searched = len(buffer)
        return lines

    def _too_long(self, before: list[bytes]) -> FrameError:
        self._buffer.clear()
        self._searched = 0
        return FrameError(f"a line longer than {self._max} bytes", before)


def _checked(max_frame: int) -> int:
    if not 0 < max_frame <= LARGEST_LIMIT:
        raise ValueError(f"max_frame is {max_frame}; it must be from 1 to {LARGEST_LIMIT}")
    return max_frame
