"""Target: the decoders, in both directions. What they let through is a frame that says itself again."""

from __future__ import annotations

import sys
from functools import reduce
from operator import or_
from typing import Any

import atheris

with atheris.instrument_imports(include=["protocol"]):
    from protocol.framing import FrameError, decoder_for, encode
    from protocol.messages.public import PUBLIC
    from protocol.wire import CODECS, UNREADABLE, CastFrame, MalformedMessage, ReplyFrame, RequestFrame
from tests.protocol.fuzz.measure import Measure
from tests.protocol.fuzz.seeds import ENCODINGS

TAKEN: Any = reduce(or_, {message for taken in PUBLIC.values() for message in taken})
LIMIT = 4096
measure = Measure("frames", int(sys.argv[1]))


def one_input(data: bytes) -> None:
    measure.one_more()
    if len(data) < 2:
        return
    encoding = ENCODINGS[data[0] & 1]
    codec = CODECS[encoding]
    read = codec.decode_from_server if data[0] & 2 else codec.from_client
    decoder = decoder_for(encoding, LIMIT)
    step = data[1] if data[0] & 4 else len(data)
    payloads: list[bytes] = []
    try:
        for start in range(1, len(data), step or 1):
            payloads += decoder.feed(data[start : start + (step or 1)])
    except FrameError as error:
        payloads += error.before
    for payload in payloads:
        assert 0 < len(payload) <= LIMIT
        try:
            frame = read(payload)
            if isinstance(frame, RequestFrame | CastFrame):
                codec.decode_body(frame.body, TAKEN)
            if isinstance(frame, RequestFrame | CastFrame | ReplyFrame):
                codec.decode_body(frame.body, Any)
        except MalformedMessage:
            continue
        except UNREADABLE:
            assert data[0] & 2, "what a client says is refused by type"
            continue
        (again,) = decoder_for(encoding, 2 * LIMIT).feed(encode(frame, encoding))
        assert encode(read(again), encoding) == encode(frame, encoding)


atheris.Setup([sys.argv[0], *sys.argv[2:]], one_input)
atheris.Fuzz()
