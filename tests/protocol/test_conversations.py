"""Whatever is said, in whatever pieces: each question is answered as often as it was asked, and nobody is harmed."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio.from_thread
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.client import Client
from protocol.framing import Encoding, decoder_for, detect, encode
from protocol.server import Traffic
from protocol.wire import CODECS, UNREADABLE, MalformedMessage
from tests.protocol import conversations
from tests.protocol.conversations import IN_FLIGHT, MAX_FRAME, SUBSCRIPTIONS, Foretold, Told
from tests.protocol.desk import Desk
from tests.protocol.fuzz.seeds import frames, spoken
from tests.protocol.house import Echo, hello, serving

encodings = st.sampled_from(["json", "msgpack"])
serials = itertools.count()
PATIENCE = 10.0
"""Seconds after which a silence is a hang."""


class Server:
    """A server on a loop of its own, and somebody who behaves."""

    def __init__(self, path: Path, desk: Desk, traffic: Traffic, bystander: Client) -> None:
        self.path = path
        self.desk = desk
        self.traffic = traffic
        self.bystander = bystander

    def is_well(self) -> None:
        assert self.bystander.call("Desk", Echo("fine"), timeout=PATIENCE) == "fine"


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("desk") / "control.sock"
    desk, traffic = Desk(), Traffic()
    limits = {"max_frame": MAX_FRAME, "in_flight": IN_FLIGHT, "subscriptions": SUBSCRIPTIONS, "retry_within": 0.01}
    with anyio.from_thread.start_blocking_portal(request.param) as portal:
        with portal.wrap_async_context_manager(serving(path, desk, traffic, **limits)):  # type: ignore[arg-type]
            with Client.connect(path) as bystander:
                server = Server(path, desk, traffic, bystander)
                yield server
                server.is_well()


class Speaker:
    """A client that says bytes and hears messages."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._decoder = decoder_for(encoding, 1 << 24)
        self._heard: list[dict[str, Any]] = []
        self._module: Any = msgspec.json if encoding == "json" else msgspec.msgpack

    def say(self, data: bytes, cuts: list[int]) -> None:
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        with suppress(BrokenPipeError, ConnectionResetError):  # hung up on: what it was told is still there to be read
            for a, b in itertools.pairwise(edges):
                self._socket.sendall(data[a:b])

    def done(self) -> None:
        """Say no more."""
        with suppress(OSError):  # the server may be quicker
            self._socket.shutdown(socket.SHUT_WR)

    def hear(self) -> dict[str, Any] | None:
        """Return the next message; none when the server has closed."""
        while not self._heard:
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._heard += [self._module.decode(payload) for payload in self._decoder.feed(data)]
        return self._heard.pop(0)

    def __enter__(self) -> Speaker:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def matches(heard: dict[str, Any], told: Told) -> bool:
    kind, id, what = told
    if (heard["type"], heard.get("id")) != (kind, id):
        return False
    return heard["body"] == what if kind == "reply" else heard["code"] in what


@given(encodings, st.lists(conversations.steps, max_size=14), conversations.ends, conversations.cuts)
@settings(max_examples=400)
def test_every_conversation_goes_as_foretold(
    server: Server, encoding: Encoding, steps: list[Any], end: str, cuts: list[int]
) -> None:
    foretold = Foretold(f"{next(serials)}-", encoding)
    said = [encode(hello(), encoding)]
    said += [encode(foretold.hear(step), encoding) for step in steps]
    said.append(foretold.last(end))
    with Speaker(server.path, encoding) as speaker:
        speaker.say(b"".join(said), cuts)
        if end != "gone":
            speaker.done()
            welcome = speaker.hear()
            assert welcome is not None and welcome["type"] == "welcome"
            listen(speaker, foretold, whole=end != "fault")
            if end == "fault" or not foretold.subscriptions:
                while (more := speaker.hear()) is not None:
                    assert more["type"] == "event", f"{more}: the server said more than it was asked"
    server.is_well()


def listen(speaker: Speaker, foretold: Foretold, *, whole: bool) -> None:
    """Hear all that was foretold: answers in their order; events, which come between them, in theirs."""
    told, events = list(foretold.told), list(foretold.events)
    while told or (whole and events):
        heard = speaker.hear()
        assert heard is not None, f"the server closed before {told or events}"
        if heard["type"] == "event":
            events.remove((heard["id"], heard["data"]["number"]))
        else:
            assert told, f"{heard} was not asked for"
            assert matches(heard, told[0]), f"{heard}, not {told[0]}"
            del told[0]


def changed(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    """Return bytes with some of them changed, lost, said twice or put in between."""
    changing = bytearray(data)
    for kind, place, value in changes:
        at = place % (len(changing) + 1)
        if kind == "set":
            changing[at : at + 1] = bytes([value])
        elif kind == "lose":
            del changing[at : at + value % 9]
        elif kind == "repeat":
            changing[at:at] = changing[at : at + value]
        else:
            changing[at:at] = bytes([value])
    return bytes(changing)


changes = st.lists(
    st.tuples(st.sampled_from(["set", "lose", "repeat", "insert"]), st.integers(0, 2000), st.integers(0, 255)),
    max_size=5,
)


@given(encodings, st.booleans(), st.lists(st.integers(0, 99), min_size=1, max_size=5), changes, conversations.cuts)
@settings(max_examples=400)
def test_golden_frames_with_changed_bytes_are_answered_by_type_or_not_at_all(
    server: Server, encoding: Encoding, greeted: bool, picked: list[int], how: list[Any], cuts: list[int]
) -> None:
    choice = [frame for frame in frames("client", encoding) + spoken(encoding) if b"hold" not in frame]
    choice = [frame for frame in choice if b"numbers" not in frame]
    said = changed(b"".join(choice[number % len(choice)] for number in picked), how)
    said = encode(hello(), encoding) + said if greeted else said
    if said:
        with Speaker(server.path, detect(said)) as speaker:
            speaker.say(said, cuts)
            speaker.done()
            codec = CODECS[detect(said)]
            while (heard := speaker.hear()) is not None:
                raw = msgspec.json.encode(heard) if codec.encoding == "json" else msgspec.msgpack.encode(heard)
                codec.decode_from_server(raw)  # typed, whatever it is
    server.is_well()


@given(encodings, st.sampled_from(["client", "server"]), st.integers(0, 99), changes)
@settings(max_examples=1000)
def test_a_changed_golden_frame_is_another_frame_or_malformed(
    encoding: Encoding, side: str, number: int, how: list[Any]
) -> None:
    codec = CODECS[encoding]
    read: Any = codec.from_client if side == "client" else codec.decode_from_server
    choice = frames(side, encoding)
    whole = choice[number % len(choice)]
    payload = changed(whole[4:] if encoding == "msgpack" else whole, how)
    try:
        frame = read(payload)
    except MalformedMessage as error:
        assert side == "client"
        assert error.id is None or 0 < len(error.id) <= 128
    except UNREADABLE:
        assert side == "server"
    else:
        again = encode(frame, encoding)
        assert encode(read(again[4:] if encoding == "msgpack" else again), encoding) == again
