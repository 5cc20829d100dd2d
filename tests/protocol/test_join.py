"""A connection becomes a link: its socket is handed over, whole, or the connection goes on as it was."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from protocol.client import Failed, NoDaemon
from protocol.framing import encode_frame
from protocol.join import join
from protocol.server import Traffic
from protocol.wire import Code, WelcomeFrame
from tests.protocol.house import House, Raw, hello, request, serving, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


def asking(name: str = "Guest", id: str = "j1") -> dict[str, Any]:
    return {"type": "join", "id": id, "name": name}


async def recv(sock: socket.socket) -> bytes:
    with anyio.fail_after(5):
        await anyio.wait_readable(sock)
    return sock.recv(1 << 16)


async def test_after_the_reply_the_socket_is_the_handlers_alone(path: Path) -> None:
    house, traffic = House(), Traffic()
    async with serving(path, house, traffic):
        ours = await join(path, "Guest", "test/1.0", 5)
        (theirs,) = house.joined
        assert {peer.pid for peer in house.peers} == {os.getpid()}
        await until(lambda: traffic.open == 0)  # it is no client's any more, and still open
        ours.send(b"up")
        assert await recv(theirs) == b"up"
        theirs.send(b"down")
        assert await recv(ours) == b"down"
    ours.send(b"and after the server")
    assert await recv(theirs) == b"and after the server"
    ours.close()
    assert await recv(theirs) == b""
    theirs.close()


async def test_all_that_was_said_before_may_come_in_one_piece_and_byte_by_byte(path: Path) -> None:
    data = encode_frame(hello()) + encode_frame(asking())
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        house = House()
        async with serving(path, house), Raw(path, "msgpack") as client:
            for piece in pieces:
                await client.send_bytes(piece)
            assert (await client.receive())["type"] == "welcome"
            assert await client.receive() == {"type": "reply", "id": "j1", "body": None}
            await until(lambda: len(house.joined) == 1)  # noqa: B023
            house.joined[0].close()


async def test_a_refused_join_is_an_error_and_the_connection_goes_on(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path, "msgpack") as client:
        await client.greet()
        await client.send(asking("House"))
        assert await client.receive() == {
            "type": "error", "id": "j1", "code": Code.NOT_JOINABLE, "message": "House is served here",
        }  # fmt: skip
        await client.send(request("a1", {"type": "echo", "text": "ahoy"}))
        assert (await client.receive())["body"] == "ahoy"
    assert house.joined == []


async def test_a_json_connection_cannot_become_a_link(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path, "json") as client:
        await client.greet()
        await client.send(asking())
        answer = await client.receive()
        assert (answer["code"], answer["id"]) == (Code.BAD_MESSAGE, "j1")
        assert "msgpack" in answer["message"]
    assert house.joined == []


@pytest.mark.parametrize("behind", [b"\x00", encode_frame({"type": "nonsense"}), encode_frame(asking(id="j2"))])
async def test_nothing_may_be_said_behind_a_join(path: Path, behind: bytes) -> None:
    house = House()
    async with serving(path, house), Raw(path, "msgpack") as client:
        await client.greet()
        await client.send_bytes(encode_frame(asking()) + behind)
        answer = await client.receive()
        assert (answer["code"], answer["id"]) == (Code.BUSY, "j1")
        if len(house.joined) == 1:  # the second one had nothing behind it
            assert behind == encode_frame(asking(id="j2"))
            house.joined.pop().close()
    assert house.joined == []


async def test_what_is_under_way_is_not_torn_off(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path, "msgpack") as client:
        await client.greet()
        await client.send(request("a1", {"type": "hold", "name": "x"}))
        await until(lambda: "x" in house.held)
        await client.send(asking())
        assert (await client.receive())["code"] == Code.BUSY
        house.held["x"].reply("held")
        assert (await client.receive())["body"] == "held"
        await client.send(asking())
        assert (await client.receive())["type"] == "reply"
    house.joined.pop().close()


async def test_a_join_before_hello_is_no_hello(path: Path) -> None:
    async with serving(path, House()), Raw(path, "msgpack") as client:
        await client.send(asking())
        assert (await client.receive())["code"] == Code.BAD_HELLO


async def test_who_joins_is_told_why_not(path: Path) -> None:
    with pytest.raises(NoDaemon):
        await join(path, "Guest", "test/1.0", 5)
    async with serving(path, House()):
        with pytest.raises(Failed) as failed:
            await join(path, "House", "test/1.0", 5)
        assert failed.value.code == Code.NOT_JOINABLE


@pytest.mark.parametrize(
    "said", [b"", encode_frame(WelcomeFrame(version=1, server="mute/1.0", pid=1, instance="mute"))]
)
async def test_a_silent_server_is_given_up(path: Path, said: bytes) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        async def accept() -> None:
            await anyio.wait_readable(listener)
            with listener.accept()[0] as accepted:
                accepted.sendall(said)
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            with pytest.raises(Failed) as failed:
                await join(path, "Guest", "test/1.0", 0.3)
            assert failed.value.code == Code.TIMED_OUT
            tasks.cancel_scope.cancel()
