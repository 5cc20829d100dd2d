"""What version 1 of the wire looks like stands in files, and is understood for ever; see golden/README.md."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest

from protocol.framing import HEADER, Encoding, decoder_for
from protocol.messages.common import Request, reply_type
from protocol.messages.public import PUBLIC
from protocol.wire import CODECS, VERSION, CastFrame, ClientFrame, Frame, ReplyFrame, RequestFrame, ServerFrame
from tests.protocol.golden.examples import ALL, CLIENT, REPLIES
from tests.protocol.golden.lines import FOLDER, Line, golden, written

HOW_TO_ADD = "give it an example in tests/protocol/golden/examples.py, then: python -m tests.protocol.golden --add"
PUBLIC_MESSAGES = {message for taken in PUBLIC.values() for message in taken}
ENCODINGS: tuple[Encoding, ...] = ("json", "msgpack")
EVERY = [pytest.param(file, line, id=f"{file}-{line.name}") for file in ALL for line in golden(file).values()]


def said(line: Line, encoding: Encoding) -> bytes:
    return line.json.encode() if encoding == "json" else bytes.fromhex(line.msgpack)


def original(name: str) -> str:
    """The name of the first example of what this is a later one of: ``pause/2`` -> ``pause``."""
    return name.partition("/")[0]


def understood(file: str, line: Line, encoding: Encoding) -> Any:
    """Decode a line as the one whom it is for would."""
    codec = CODECS[encoding]
    data = said(line, encoding)
    if file == "messages":
        return codec.decode_body(data, type(ALL[file][line.name]))
    if file == "replies":
        return codec.decode_body(data, reply_type(by_name(line.name)))
    (payload,) = decoder_for(encoding).feed(data + (b"\n" if encoding == "json" else b""))
    return with_body(
        (codec.from_client if file == "client" else codec.decode_from_server)(payload), ALL[file][line.name], encoding
    )


def by_name(name: str) -> type[Request[Any]]:
    (found,) = [message for message in PUBLIC_MESSAGES if message.__name__ == original(name).split()[0]]
    assert issubclass(found, Request)
    return found


def with_body(frame: Frame, example: Frame, encoding: Encoding) -> Frame:
    """The frame with its body decoded to the type that the example's has."""
    if not isinstance(frame, RequestFrame | CastFrame | ReplyFrame):
        return frame
    assert isinstance(example, RequestFrame | CastFrame | ReplyFrame)
    return msgspec.structs.replace(frame, body=CODECS[encoding].decode_body(frame.body, type(example.body)))


@pytest.mark.parametrize(("file", "line"), EVERY)
def test_every_line_is_understood(file: str, line: Line, encoding: Encoding) -> None:
    assert understood(file, line, encoding) == ALL[file][line.name]


@pytest.mark.parametrize("file", ALL)
def test_what_is_written_now_is_the_newest_line(file: str) -> None:
    newest = {original(name): name for name in golden(file)}
    for name in newest.values():
        assert written(file, name, ALL[file][name]) == golden(file)[name], (
            f"{file}: {name}; see golden/README.md, rule 3"
        )


@pytest.mark.parametrize(("file", "line"), EVERY)
def test_both_encodings_say_the_same_in_plain_data(file: str, line: Line) -> None:
    """As a client without our types reads them."""
    packed = bytes.fromhex(line.msgpack)
    if file in ("client", "server"):
        assert HEADER.unpack_from(packed) == (len(packed) - HEADER.size,)
        packed = packed[HEADER.size :]
    assert msgspec.to_builtins(msgspec.msgpack.decode(packed)) == json.loads(line.json)


@pytest.mark.parametrize("file", ALL)
def test_every_example_has_its_line_and_every_line_its_example(file: str) -> None:
    assert set(golden(file)) == set(ALL[file]), HOW_TO_ADD
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(ALL)


def test_every_frame_has_an_example() -> None:
    for file, union in (("client", ClientFrame), ("server", ServerFrame)):
        missing = set(get_args(union)) - {type(example) for example in ALL[file].values()}
        assert not missing, f"{missing} of {file}: {HOW_TO_ADD}"


def test_every_public_message_and_every_reply_has_an_example() -> None:
    missing = PUBLIC_MESSAGES - {type(example) for example in ALL["messages"].values()}
    assert not missing, f"{missing} of messages: {HOW_TO_ADD}"
    asked = {message.__name__ for message in PUBLIC_MESSAGES if issubclass(message, Request)}
    missing_replies = asked - {original(name).split()[0] for name in REPLIES}
    assert not missing_replies, f"{missing_replies} of replies: {HOW_TO_ADD}"


def test_the_version_is_the_one_of_the_files() -> None:
    assert VERSION == 1, "begin a folder v2; v1 stays, and is understood"
    assert CLIENT["hello"].max == VERSION


def test_an_old_line_is_understood_after_a_field_was_added() -> None:
    """The rule of the README, tried on a message with a field more than the golden one."""
    grown = msgspec.defstruct(
        "Pause", [("release", bool, False), ("why", str, "")], tag="pause", tag_field="type", frozen=True
    )
    line = golden("messages")["Pause"]
    for encoding in ENCODINGS:
        assert CODECS[encoding].decode_body(said(line, encoding), grown) == grown(True, "")
