"""Cutting messages out of byte streams."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.framing import (
    HEADER,
    LARGEST_LIMIT,
    Decoder,
    FrameDecoder,
    FrameError,
    LineDecoder,
    decoder_for,
    detect,
    encode,
    encode_frame,
    encode_line,
)

values = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=40) | st.lists(st.integers(0, 9)),
    max_size=5,
)


def feed_in_pieces(decoder: Decoder, data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [payload for a, b in itertools.pairwise(edges) for payload in decoder.feed(data[a:b])]


@given(st.lists(values, max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[Any], cuts: list[int]) -> None:
    decoder = FrameDecoder(1 << 16)
    got = feed_in_pieces(decoder, b"".join(map(encode_frame, sent)), cuts)
    assert [msgspec.msgpack.decode(payload) for payload in got] == sent
    assert not decoder.partial


@given(st.lists(values, max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_lines_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[Any], cuts: list[int]) -> None:
    decoder = LineDecoder(1 << 16)
    got = feed_in_pieces(decoder, b"".join(map(encode_line, sent)), cuts)
    assert [json.loads(line) for line in got] == sent
    assert not decoder.partial


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_garbage_raises_frame_error_or_waits_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    for decoder in (FrameDecoder(64), LineDecoder(64)):
        try:
            payloads = feed_in_pieces(decoder, data, cuts)
        except FrameError as error:
            payloads = error.before
        assert all(0 < len(payload) <= 64 for payload in payloads)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_where_a_stream_is_cut_never_changes_what_is_read(data: bytes, cuts: list[int]) -> None:
    def read(decoder: Decoder, pieces: list[int]) -> tuple[list[bytes], str | None]:
        got: list[bytes] = []
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in pieces)})
        for a, b in itertools.pairwise(edges):
            try:
                got += decoder.feed(data[a:b])
            except FrameError as error:
                return got + error.before, str(error)
        return got, None

    assert read(FrameDecoder(64), []) == read(FrameDecoder(64), cuts)
    assert read(LineDecoder(64), []) == read(LineDecoder(64), cuts)


@pytest.mark.parametrize("length", [0, 101, 2**32 - 1])
def test_a_bad_length_is_refused_at_the_header(length: int) -> None:
    decoder = FrameDecoder(100)
    with pytest.raises(FrameError) as caught:
        decoder.feed(encode_frame({"a": 1}) + HEADER.pack(length))
    assert [msgspec.msgpack.decode(payload) for payload in caught.value.before] == [{"a": 1}]
    assert not decoder.partial


def test_the_largest_frame_passes() -> None:
    assert FrameDecoder(100).feed(HEADER.pack(100) + bytes(100)) == [bytes(100)]
    assert LineDecoder(100).feed(b"x" * 100 + b"\n") == [b"x" * 100]


def test_a_line_without_an_end_is_refused_when_it_passes_the_limit() -> None:
    decoder = LineDecoder(10)
    assert decoder.feed(b"x" * 10) == []
    with pytest.raises(FrameError):
        decoder.feed(b"x")
    with pytest.raises(FrameError):
        LineDecoder(10).feed(b"x" * 11 + b"\n")


def test_blank_lines_and_carriage_returns_are_nothing() -> None:
    assert LineDecoder(10).feed(b'\r\n\n{"a":1}\r\n  \n') == [b'{"a":1}']


def test_partial_says_that_a_payload_has_begun() -> None:
    frames, lines = FrameDecoder(10), LineDecoder(10)
    frames.feed(b"\0")
    lines.feed(b"{")
    assert frames.partial and lines.partial


def test_no_frame_begins_like_json() -> None:
    assert detect(b'{"type"') == "json"
    assert detect(HEADER.pack(LARGEST_LIMIT)) == "msgpack"
    with pytest.raises(ValueError, match="max_frame"):
        FrameDecoder(LARGEST_LIMIT + 1)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_each_encoding_has_its_decoder(encoding: Any) -> None:
    data = encode({"a": 1}, encoding)
    assert detect(data) == encoding
    assert len(decoder_for(encoding).feed(data)) == 1
