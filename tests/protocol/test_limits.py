"""What hostile, slow, broken and numerous clients can do to the server and to each other: nothing."""

from __future__ import annotations

import os
import random
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest

from protocol import connection
from protocol.aclient import connect
from protocol.framing import HEADER, encode, encode_frame
from protocol.handler import Peer
from protocol.server import Traffic
from tests.protocol.house import Echo, House, Raw, hello, in_thread, request, serving, until

pytestmark = pytest.mark.anyio


async def still_works(path: Path) -> None:
    async with connect(path) as client:
        assert await client.call("House", Echo("fine")) == "fine"


# ---------------------------------------------------------------- malformed input


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("msgpack", HEADER.pack(0)),
        ("msgpack", HEADER.pack(4097) + b"x" * 100),
        ("msgpack", b"\xff\xff\xff\xff"),
        ("msgpack", b"GET / HTTP/1.1\r\n\r\n"),
        ("json", b'{"type": "hello"' + b" " * 5000),
        ("json", b'{"type": "hello"' + b" " * 5000 + b"}\n"),
    ],
)
async def test_a_bad_frame_is_an_error_and_a_close(path: Path, encoding: Any, data: bytes) -> None:
    async with serving(path, House(), max_frame=4096):
        for greeted in (True, False):
            async with Raw(path, encoding) as client:
                if greeted:
                    await client.greet()
                await client.send_bytes(data)
                assert (await client.receive())["code"] == "bad_frame"
                assert await client.closed()
        await still_works(path)


async def test_what_came_before_a_bad_frame_is_still_done(path: Path) -> None:
    async with serving(path, House()), Raw(path, "msgpack") as client:
        await client.greet()
        await client.send_bytes(encode_frame(request("a1", {"type": "echo", "text": "x"})) + HEADER.pack(0))
        assert (await client.receive())["body"] == "x"
        assert (await client.receive())["code"] == "bad_frame"


async def test_who_still_sends_when_hung_up_on_can_read_why(path: Path) -> None:
    async with serving(path, House(), max_frame=4096), Raw(path, "msgpack") as client:
        await client.greet()
        with anyio.move_on_after(5):
            await client.send_bytes(HEADER.pack(1 << 20) + bytes(1 << 20))
        assert (await client.receive())["code"] == "bad_frame"


async def test_random_bytes_harm_nobody(path: Path) -> None:
    dice = random.Random(7)
    valid = [hello(), request("a1", {"type": "echo", "text": "x"}), {"type": "subscribe", "id": "s", "topics": ["t"]}]
    async with serving(path, House(), max_frame=4096), connect(path) as bystander:
        for _ in range(150):
            encoding = dice.choice(("json", "msgpack"))
            data = bytearray(b"".join(encode(each, encoding) for each in valid))  # type: ignore[arg-type]
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            if dice.random() < 0.3:
                data = data[: dice.randrange(len(data))]
            async with Raw(path, encoding) as client:  # type: ignore[arg-type]
                await client.send_bytes(bytes(data))
                client.socket.shutdown(socket.SHUT_WR)
            assert await bystander.call("House", Echo("fine")) == "fine"


async def test_nesting_without_end_is_a_malformed_message(path: Path) -> None:
    async with serving(path, House()), Raw(path) as client:
        await client.greet()
        await client.send_bytes(b'{"type":"request","id":"a1","to":"House","body":' + b"[" * 200_000 + b"\n")
        assert (await client.receive())["code"] == "bad_message"
        await client.send(request("a2", {"type": "echo", "text": "x"}))
        assert (await client.receive())["body"] == "x"


# ---------------------------------------------------------------- slow clients


async def test_no_hello_in_time(path: Path) -> None:
    async with serving(path, House(), hello_within=0.1):
        async with Raw(path) as silent, Raw(path) as begun:
            await begun.send_bytes(b'{"type"')
            assert await silent.closed()
            assert (await begun.receive())["code"] == "hello_timeout"
            assert await begun.closed()


async def test_a_message_never_finished(path: Path, encoding: Any) -> None:
    async with serving(path, House(), frame_within=0.2):
        async with Raw(path, encoding) as client:
            await client.greet()
            await client.send_bytes(encode(request("a1", {"type": "echo", "text": "x"}), encoding)[:-1])
            assert (await client.receive())["code"] == "frame_timeout"
            assert await client.closed()


async def test_trickling_does_not_prolong_the_time_limit(path: Path, encoding: Any) -> None:
    house = House()
    async with serving(path, house, frame_within=0.3), Raw(path, encoding) as client:
        await client.greet()
        data = encode(request("a1", {"type": "echo", "text": "x" * 10_000}), encoding)
        begun = anyio.current_time()
        with pytest.raises(OSError):
            for byte in data:
                await client.send_bytes(bytes([byte]))
                await anyio.sleep(0.01)  # a slow client
        assert anyio.current_time() - begun < 3
        assert (await client.receive())["code"] == "frame_timeout"
    assert not house.asked


async def test_an_idle_client_is_left_alone(path: Path) -> None:
    async with serving(path, House(), hello_within=0.1, frame_within=0.1), Raw(path) as client:
        await client.greet()
        await client.send(request("a1", {"type": "echo", "text": "x"}))
        await client.receive()
        await anyio.sleep(0.3)  # past every limit; what does not happen cannot be waited for
        await client.send(request("a2", {"type": "echo", "text": "y"}))
        assert (await client.receive())["body"] == "y"


async def test_who_asks_and_never_reads_is_not_listened_to_and_then_given_up(path: Path) -> None:
    house = House()
    traffic = Traffic()
    async with serving(path, house, traffic, write_within=0.2), connect(path) as bystander, Raw(path) as client:
        await client.greet()
        with anyio.move_on_after(10), pytest.raises(OSError):
            number = 0
            while True:
                number += 1
                await client.send(request(str(number), {"type": "echo", "text": "x" * 10_000}))
        await until(lambda: traffic.open == 1)
        assert house.asked["Echo"] < 1000
        assert await bystander.call("House", Echo("fine")) == "fine"


async def test_too_much_in_flight_is_busy_and_nothing_is_done(path: Path) -> None:
    house = House()
    async with serving(path, house, in_flight=3), Raw(path) as client:
        await client.greet()
        await client.send(*(request(name, {"type": "hold", "name": name}) for name in "abcd"))
        busy = await client.receive()
        assert (busy["id"], busy["code"]) == ("d", "busy")
        assert set(house.held) == {"a", "b", "c"}
        house.held["a"].reply("A")
        assert (await client.receive())["body"] == "A"
        await client.send(request("d", {"type": "echo", "text": "x"}))
        assert (await client.receive())["body"] == "x"


async def test_too_many_subscriptions(path: Path) -> None:
    async with serving(path, House(), subscriptions=1), Raw(path) as client:
        await client.greet()
        await client.send(*({"type": "subscribe", "id": name, "topics": ["steps"]} for name in "ab"))
        assert (await client.receive())["type"] == "reply"
        assert (await client.receive())["code"] == "busy"


async def test_a_reply_over_the_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.answers.LARGEST_REPLY", 2048)
    async with serving(path, House()), Raw(path) as client:
        await client.greet()
        await client.send(request("a1", {"type": "echo", "text": "x" * 2000}))
        assert (await client.receive())["code"] == "reply_too_large"


# ---------------------------------------------------------------- many clients


async def test_a_thousand_and_more_at_once(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2400:
        pytest.fail(f"this test needs 2,400 file descriptors; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2400), hard))
    clients: list[Raw] = []
    traffic = Traffic()
    try:
        async with serving(path, House(), traffic):
            for _ in range(1024):
                clients.append(Raw(path))
                await clients[-1].send(hello())
                if len(clients) % 64 == 0:
                    await clients[-1].receive()
            for client in clients:
                await client.send(request("a1", {"type": "echo", "text": "x"}))
            for client in clients:
                while (await client.receive())["type"] != "reply":
                    pass
            assert traffic.open == 1024
            async with Raw(path) as one_more:
                await one_more.send(hello())
                assert (await one_more.receive())["code"] == "full"
    finally:
        for client in clients:
            client.socket.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_those_without_a_hello_go_first(path: Path) -> None:
    traffic = Traffic()
    async with serving(path, House(), traffic, max_connections=4), Raw(path) as guest:
        await guest.greet()
        silent = [Raw(path) for _ in range(40)]
        async with Raw(path) as newcomer:
            await newcomer.greet()
            assert await silent[0].closed()
            await until(lambda: traffic.evicted >= 20)
            for client in (guest, newcomer):
                await client.send(request("a1", {"type": "echo", "text": "x"}))
                assert (await client.receive())["body"] == "x"
        for each in silent:
            each.socket.close()


async def test_ten_thousand_connect_and_leave(path: Path) -> None:
    traffic = Traffic()

    def come_and_go() -> None:
        for number in range(10_000):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                if number % 2:
                    client.send(b'{"type":"hello","min":1,"max":1,"client":"x"}\n{"type":"requ')

    async with serving(path, House(), traffic), connect(path) as bystander:
        files = len(os.listdir("/proc/self/fd"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread, come_and_go)
            for _ in range(20):
                assert await bystander.call("House", Echo("fine")) == "fine"
        await until(lambda: traffic.accepted == 10_001 and traffic.open == 1, within=60)
        assert len(os.listdir("/proc/self/fd")) <= files + 1


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_soft_limit_of_open_files_is_raised_as_needed(path: Path, few_files: None) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    async with serving(path, House(), max_connections=400):
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 400
    resource.setrlimit(resource.RLIMIT_NOFILE, (900, hard))
    async with serving(path, House(), max_connections=4):
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 900


async def test_without_file_descriptors_the_server_waits_and_goes_on(path: Path, few_files: None) -> None:
    traffic = Traffic()
    async with serving(path, House(), traffic), connect(path) as bystander, Raw(path) as late:
        await until(lambda: traffic.open == 2)
        waiting = socket.socket(socket.AF_UNIX)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        filling = [os.dup(0) for _ in range(highest)]  # no gaps below the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(filling) + 1, hard))
        waiting.connect(str(path))
        await until(lambda: traffic.starved >= 1)
        assert await bystander.call("House", Echo("fine")) == "fine"
        for fd in filling:
            os.close(fd)
        waiting.send(b'{"type":"hello","min":1,"max":1,"client":"x"}\n')
        await anyio.wait_readable(waiting)
        assert b"welcome" in waiting.recv(1000)
        waiting.close()
        assert await late.closed()  # it had not said hello, so it made room


async def test_a_stranger_is_turned_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic()
    async with serving(path, House(), traffic):
        with monkeypatch.context() as patched:
            patched.setattr("protocol.server.peer_of", lambda sock: Peer(1, os.geteuid() + 1, 1))
            async with Raw(path) as stranger:
                assert await stranger.closed()
        assert traffic.strangers == 1
        await still_works(path)


async def test_another_user_who_got_at_the_socket_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic()
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "control.sock"
        async with serving(path, House(), traffic):
            path.chmod(0o666)
            with monkeypatch.context() as patched:
                async with connect_as_another_user(path, patched) as stranger:
                    assert await stranger.closed()
            assert traffic.strangers == 1
            await still_works(path)


def connect_as_another_user(path: Path, patched: pytest.MonkeyPatch) -> Raw:
    """Root becomes somebody else to connect. For anybody else it is the server that is made to think so of itself."""
    own = os.geteuid()
    if own != 0:
        patched.setattr(os, "geteuid", lambda: own + 1)
        return Raw(path)
    os.seteuid(65534)
    try:
        return Raw(path)
    finally:
        os.seteuid(0)


# ---------------------------------------------------------------- the handler's own faults


async def test_a_fault_of_the_handler_ends_the_server_and_is_not_hidden(path: Path) -> None:
    class Broken(House):
        def request(self, *_: Any) -> Any:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ExceptionGroup) as caught, anyio.fail_after(5):
        async with serving(path, Broken()), Raw(path) as client:
            await client.send(hello(), request("a1", {"type": "echo", "text": "x"}))
            await anyio.sleep_forever()
    assert caught.group_contains(ZeroDivisionError)
    assert not path.exists()


async def test_half_closed_and_then_gone_is_noticed(path: Path) -> None:
    house = House()
    async with serving(path, house, retry_within=0.01):
        async with Raw(path) as client:
            await client.greet()
            await client.send(request("a1", {"type": "hold", "name": "h"}))
            client.socket.shutdown(socket.SHUT_WR)
            await until(lambda: "h" in house.held)
            # Some looks at the client; what does not happen cannot be waited for.
            await anyio.sleep(3 * connection.HALF_CLOSED_CHECK)
            assert house.given_up == []
        await until(lambda: house.given_up == ["h"])
