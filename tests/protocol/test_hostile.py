"""Input at and beyond each edge of the wire, and clients that die in the middle: nobody else notices."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from protocol.aclient import connect
from protocol.framing import HEADER, Encoding, encode
from protocol.server import Traffic
from tests.protocol.house import Echo, House, Raw, hello, in_thread, request, serving, until

pytestmark = pytest.mark.anyio

MIB = 1 << 20
DEEP = 100_000


def sized(encoding: Encoding, size: int) -> bytes:
    """A request whose message is of exactly this size, as the limit counts it: without length or line break."""
    around = len(msgspec.json.encode(request("a1", {"type": "echo", "text": ""})))
    if encoding == "json":
        return msgspec.json.encode(request("a1", {"type": "echo", "text": "x" * (size - around)})) + b"\n"
    empty = len(msgspec.msgpack.encode(request("a1", {"type": "echo", "text": "x" * (size - 100)}))) - (size - 100)
    payload = msgspec.msgpack.encode(request("a1", {"type": "echo", "text": "x" * (size - empty)}))
    return HEADER.pack(len(payload)) + payload


async def test_a_message_of_the_limit_is_taken_and_one_byte_more_is_not(path: Path, encoding: Encoding) -> None:
    assert len(sized(encoding, MIB)) == MIB + (1 if encoding == "json" else HEADER.size)
    async with serving(path, House()):
        async with Raw(path, encoding) as client:
            await client.greet()
            await client.send_bytes(sized(encoding, MIB))
            assert (await client.receive())["type"] == "reply"
            with anyio.move_on_after(5):
                await client.send_bytes(sized(encoding, MIB + 1))
            assert (await client.receive())["code"] == "bad_frame"
            assert await client.closed()


NAME = {"type": "request", "id": "a1", "to": "House"}
PACKED = msgspec.msgpack.encode({**NAME, "timeout": 5.0}).replace(b"\x84", b"\x85", 1) + b"\xa4body"
LINE = msgspec.json.encode(NAME)[:-1] + b',"body":'


@pytest.mark.parametrize(
    ("encoding", "payload"),
    [
        pytest.param("json", LINE + b"[" * DEEP + b"]" * DEEP + b"}", id="deep"),
        pytest.param("json", LINE + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", id="deep objects"),
        pytest.param("json", LINE + b'{"type":"echo","text":"\xff"}}', id="invalid UTF-8"),
        pytest.param("json", LINE + b'{"type":"echo","text":"\\ud800"}}', id="half a character"),
        pytest.param("json", LINE + b'{"type":"echo","text":1' + b"0" * 10_000 + b"}}", id="a huge number"),
        pytest.param("json", LINE + b'{"type":"echo","text":"x"}} {}', id="trailing bytes"),
        pytest.param("json", LINE + b'{"type":"echo","text":"x\x00"}}', id="a control character"),
        pytest.param("json", b"\xff\xfe\x00", id="no JSON"),
        pytest.param("msgpack", PACKED + b"\x91" * DEEP + b"\xc0", id="deep"),
        pytest.param("msgpack", PACKED + b"\xdd\xff\xff\xff\xff", id="an array of 4 billion"),
        pytest.param("msgpack", PACKED + b"\xdf\xff\xff\xff\xff", id="a map of 4 billion"),
        pytest.param("msgpack", PACKED + b"\xc6\xff\xff\xff\xff", id="4 GiB of bytes"),
        pytest.param("msgpack", PACKED + b"\x82\xa4type\xa4echo\xa4text\xa1\xff", id="invalid UTF-8"),
        pytest.param("msgpack", PACKED + b"\xc0\xc0", id="trailing bytes"),
        pytest.param("msgpack", PACKED + b"\xc1", id="a byte that means nothing"),
        pytest.param("msgpack", PACKED + b"\xd7\xff" + b"\xff" * 8, id="a time beyond all"),
        pytest.param("msgpack", b'{"type":"hello"}', id="JSON in a frame"),
    ],
)
async def test_what_no_decoder_should_choke_on_is_a_malformed_message(
    path: Path, encoding: Encoding, payload: bytes
) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as client, connect(path) as bystander:
        await client.greet()
        await client.send_bytes(payload + b"\n" if encoding == "json" else HEADER.pack(len(payload)) + payload)
        assert (await client.receive())["code"] == "bad_message"
        assert not house.asked
        await client.send(request("a2", {"type": "echo", "text": "x"}))
        assert (await client.receive())["body"] == "x"
        assert await bystander.call("House", Echo("fine")) == "fine"


async def test_of_a_key_that_is_there_twice_the_last_counts(path: Path) -> None:
    async with serving(path, House()), Raw(path) as client:
        await client.greet()
        await client.send_bytes(LINE + b'{"type":"echo","text":"x","text":"y"},"id":"a2"}\n')
        answer = await client.receive()
        assert (answer["id"], answer["body"]) == ("a2", "y")


async def test_the_other_encoding_in_the_midst_of_a_connection_is_malformed(path: Path, encoding: Encoding) -> None:
    async with serving(path, House(), max_frame=4096), Raw(path, encoding) as client:
        await client.greet()
        other: Encoding = "json" if encoding == "msgpack" else "msgpack"
        await client.send_bytes(encode(request("a1", {"type": "echo", "text": "x"}), other) + b"\n")
        assert (await client.receive())["code"] in ("bad_frame", "bad_message")


@pytest.mark.parametrize("least", [2, 10**18, 10**30])
async def test_a_client_of_the_far_future_is_told_which_side_is_old(path: Path, least: int) -> None:
    async with serving(path, House()), Raw(path) as client:
        await client.send(hello(least, 10 * least))
        failure = await client.receive()
        assert failure["code"] == "incompatible" and "update the daemon" in failure["message"]
        assert await client.closed()


# ---------------------------------------------------------------- clients that die

CLIENT = """
import socket, sys, time
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(sys.argv[2].encode())
while b"reply" not in client.recv(100):
    pass
print("in the midst", flush=True)
time.sleep(60)
"""


@contextmanager
def process(path: Path, *said: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A client in a process of its own, that has read the beginning of a reply and no more of it."""
    text = b"".join(encode(each, "json") for each in said).decode()
    with subprocess.Popen([sys.executable, "-c", CLIENT, path, text], stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


async def test_clients_killed_in_the_midst_of_a_reply_leave_nothing(path: Path) -> None:
    house = House()
    traffic = Traffic()
    async with serving(path, house, traffic, retry_within=0.05), connect(path) as bystander:
        files = len(os.listdir("/proc/self/fd"))
        for number in range(4):
            more = [request("h", {"type": "hold", "name": f"h{number}"})] if number % 2 else []
            steps = [{"type": "subscribe", "id": "s", "topics": ["steps"]}] if number % 2 else []
            large = request(f"a{number}", {"type": "get_much", "size": 4 * MIB})
            with process(path, hello(), *steps, *more, large) as client:
                assert client.stdout is not None
                assert await in_thread(client.stdout.readline) == b"in the midst\n"
                client.send_signal(signal.SIGKILL)
                house.publish(number)
                assert await bystander.call("House", Echo("fine")) == "fine"
        await until(lambda: traffic.open == 1 and all(stream.closed for stream in house.streams))
        await until(lambda: sorted(house.given_up) == ["h1", "h3"])
        assert len(os.listdir("/proc/self/fd")) <= files


async def test_a_thousand_clients_of_one_byte_a_while_keep_nobody_out(path: Path) -> None:
    """They say a byte of a hello now and then, until their time is over; they are the first to make room meanwhile."""
    traffic = Traffic()
    async with serving(path, House(), traffic, max_connections=300, hello_within=2):
        said = encode(hello(), "json")
        slow: list[socket.socket] = []
        for number in range(1000):
            slow.append(socket.socket(socket.AF_UNIX))
            slow[-1].setblocking(False)
            slow[-1].connect(str(path))
            slow[-1].send(said[:1])
            if not number % 100:
                async with connect(path) as bystander:
                    assert await bystander.call("House", Echo("fine")) == "fine"
        await until(lambda: traffic.open == 0 and traffic.accepted == 1010, within=30)
        assert traffic.evicted > 0
        for each in slow:
            each.close()
