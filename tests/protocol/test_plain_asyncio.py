"""The server in an asyncio program that knows nothing of anyio, whose callbacks of the loop anyio does not see."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from protocol.aclient import connect
from protocol.client import Client
from protocol.framing import encode
from protocol.messages.system import GetTree, RestartActor
from supervisor import ChildSpec, SupervisorSpec, open_tree
from supervisor.control import ControlSocket
from tests.protocol.house import Echo, House, Raw, hello, request, serving
from tests.supervisor.helpers import Counter


def in_a_plain_program(path: Path, talk: Any, **limits: Any) -> None:
    async def main() -> None:
        async with serving(path, House(), **limits):
            await asyncio.wait_for(asyncio.to_thread(talk), 20)

    asyncio.run(main(), debug=False)


class Plain:
    """A blocking connection that speaks JSON."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))

    def say(self, *said: Any) -> None:
        self.socket.sendall(b"".join(encode(each, "json") for each in said))

    def hear(self) -> list[bytes]:
        """Return all that comes until the server closes."""
        with self.socket, self.socket.makefile("rb") as file:
            return list(file)


def test_an_error_of_the_connection_is_told_and_closes_it(path: Path) -> None:
    def talk() -> None:
        client = Plain(path)
        client.say({"type": "what"})
        assert b"bad_hello" in client.hear()[0]
        client = Plain(path)
        client.say(hello())
        client.socket.sendall(b"{" * 5000)
        assert b"bad_frame" in client.hear()[-1]

    in_a_plain_program(path, talk, max_frame=4096)


def test_a_message_in_two_pieces_is_understood_and_half_of_one_is_not_waited_for(path: Path) -> None:
    def talk() -> None:
        with Client.connect(path) as bystander:
            client = Plain(path)
            client.say(hello())
            data = encode(request("a1", {"type": "echo", "text": "x"}), "json")
            client.socket.sendall(data[:10])
            assert bystander.call("House", Echo("x")) == "x", "so the first piece was read by itself"
            client.socket.sendall(data[10:] + data[:10])
            heard = client.hear()
            assert b'"body":"x"' in heard[1]
            assert b"frame_timeout" in heard[2]

    in_a_plain_program(path, talk, frame_within=0.3)


def test_requests_subscriptions_and_a_flood(path: Path) -> None:
    def talk() -> None:
        client = Plain(path)
        client.say(hello(), {"type": "subscribe", "id": "s1", "topics": ["steps"]}, {"type": "subscribe", "id": "s2"})
        client.say(*(request(str(n), {"type": "echo", "text": "x"}) for n in range(500)), {"id": "z"})
        client.say({"type": "join", "id": "j", "name": "x"}, request("last", {"type": "refuse"}))
        with client.socket, client.socket.makefile("rb") as file:
            heard = [file.readline() for _ in range(506)]
        assert b'"not_now"' in heard[-1]

    in_a_plain_program(path, talk)


def test_the_async_client_in_a_plain_program(path: Path) -> None:
    async def main() -> None:
        async with serving(path, House()), connect(path) as client, Raw(path) as raw:
            assert await asyncio.gather(*(client.call("House", Echo(str(n))) for n in range(50))) == [
                str(n) for n in range(50)
            ]
            await raw.send({"type": "what"})
            assert (await raw.receive())["code"] == "bad_hello"
            assert await raw.closed()

    asyncio.run(main())


def test_a_control_socket_in_a_plain_program(path: Path) -> None:
    """All that a tree says over its socket, with what stands behind it: introspection, topics, and a refused join."""

    def talk() -> None:
        with Client.connect(path) as client, client.subscribe(["lifecycle", "trace/a"]) as events:
            assert client.call("ControlSocket", GetTree()).id == "root"
            assert client.call("ControlSocket", RestartActor("a")).incarnation == 2
            assert next(events) is not None
            raw = Plain(path)
            raw.say(
                hello(), {"type": "join", "id": "j", "name": "a"}, {"type": "subscribe", "id": "s", "topics": ["x"]}
            )
            raw.socket.sendall(b"{" * (1 << 20) + b"{")
            heard = raw.hear()
            assert [json.loads(line)["code"] for line in heard[1:]] == ["bad_message", "unknown_topic", "bad_frame"]

    async def main() -> None:
        spec = SupervisorSpec(
            "root", [ChildSpec("a", Counter), ChildSpec("ControlSocket", lambda: ControlSocket(path))]
        )
        async with open_tree(spec):
            await asyncio.wait_for(asyncio.to_thread(talk), 20)

    asyncio.run(main())
