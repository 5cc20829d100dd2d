"""The blocking, the async and the stdlib-only client against a real server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from protocol.aclient import connect
from protocol.aconnection import Exchange
from protocol.client import Client, Failed, Lagged, NoDaemon
from protocol.framing import encode_frame
from protocol.messages.common import Request, TailEvent
from protocol.quick import ask
from tests.protocol.house import (
    WHEN,
    Echo,
    GetOdd,
    GetWhen,
    Hold,
    House,
    Note,
    Refuse,
    in_thread,
    serving,
    until,
)

pytestmark = pytest.mark.anyio


class Wrong(Request[int], frozen=True, tag="echo"):
    """Says echo, and expects another reply than comes."""

    text: str


async def test_a_call_returns_the_declared_type(path: Path, connecting: Any) -> None:
    async with serving(path, House()), connecting(path) as client:
        assert client.server.pid == os.getpid()
        assert await client.call("House", Echo("ahoy")) == "ahoy"
        assert await client.call("House", GetWhen()) == WHEN


@pytest.mark.parametrize(
    ("to", "message", "code"),
    [
        ("House", Refuse(), "not_now"),
        ("Nobody", Echo("x"), "unknown_actor"),
        ("House", GetOdd(), "handler_failed"),
        ("House", Wrong("x"), "bad_message"),
    ],
)
async def test_failures_are_typed_and_the_client_goes_on(
    path: Path, connecting: Any, to: str, message: Request[Any], code: str
) -> None:
    async with serving(path, House()), connecting(path) as client:
        with pytest.raises(Failed) as caught:
            await client.call(to, message)
        assert caught.value.code == code
        assert await client.call("House", Echo("still here")) == "still here"


async def test_a_cast_is_delivered(path: Path, connecting: Any) -> None:
    house = House()
    async with serving(path, house), connecting(path) as client:
        await client.cast("House", Note("x"))
        await client.cast("Nobody", Note("x"))
        assert await client.call("House", Echo("after")) == "after"
    assert house.notes == ["x"]


@pytest.mark.parametrize("kind", ["nothing", "stale", "no folder"])
async def test_no_daemon(path: Path, connecting: Any, kind: str) -> None:
    if kind == "stale":
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
    target = path / "deeper" if kind == "no folder" else path
    with pytest.raises(NoDaemon, match=r"control\.sock"):
        async with connecting(target):
            pass
    with pytest.raises(NoDaemon):
        ask(target, "House", {"type": "echo", "text": "x"})


async def test_no_answer_in_time(path: Path, connecting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.client.GRACE", 0.1)
    monkeypatch.setattr("protocol.aclient.GRACE", 0.1)
    async with serving(path, House()), connecting(path) as client:
        with pytest.raises(Failed) as caught:
            await client.call("House", Hold("h"), 0.1)
        assert caught.value.code == "timed_out"
        assert await client.call("House", Echo("x")) == "x"


async def test_a_message_over_the_limit_is_refused_by_name(path: Path, connecting: Any) -> None:
    async with serving(path, House(), max_frame=4096), connecting(path) as client:
        with pytest.raises(Failed) as caught:
            await client.call("House", Echo("x" * 5000))
        assert caught.value.code == "bad_frame"
        assert "4096" in str(caught.value)


async def test_a_large_reply_arrives_whole(path: Path, connecting: Any) -> None:
    async with serving(path, House(), max_frame=8 << 20), connecting(path) as client:
        text = "x" * (6 << 20)
        assert await client.call("House", Echo(text)) == text


async def test_many_calls_at_once_over_one_connection(path: Path) -> None:
    house = House()
    results: dict[int, str] = {}
    async with serving(path, house), connect(path) as client:

        async def one(number: int) -> None:
            results[number] = await client.call("House", Echo(str(number)))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)
    assert results == {number: str(number) for number in range(100)}


async def test_what_was_answered_is_not_kept_behind_a_call_that_waits_long(path: Path) -> None:
    house = House()
    async with serving(path, house), connect(path) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call, "House", Hold("h"), 3600)
        await until(lambda: "h" in house.held)
        for number in range(50):
            assert await client.call("House", Echo(str(number)), 7200) == str(number)
        kept = list(client._connection._deadlines._rising)
        assert len(kept) > 50, "they are behind the first"
        assert [exchange.frame for exchange in kept if isinstance(exchange, Exchange)] == [None] * len(kept)
        tasks.cancel_scope.cancel()


async def test_a_cancelled_call_disturbs_no_other(path: Path) -> None:
    house = House()
    got: list[str] = []
    async with serving(path, house), connect(path) as client:

        async def hold(name: str) -> None:
            got.append(await client.call("House", Hold(name)))

        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as doomed:
                doomed.start_soon(hold, "doomed")  # it reads for all, being the first
                await until(lambda: "doomed" in house.held)
                tasks.start_soon(hold, "other")
                await until(lambda: "other" in house.held)
                doomed.cancel_scope.cancel()
            for name in ("doomed", "other"):
                house.held[name].reply(name)
        assert got == ["other"]
        assert await client.call("House", Echo("x")) == "x"


# ---------------------------------------------------------------- broken connections


@asynccontextmanager
async def proxy(front: Path, back: Path) -> AsyncIterator[Callable[[], None]]:
    """Passes bytes on between clients at ``front`` and the server at ``back``; what it yields cuts all connections."""
    scopes: list[anyio.CancelScope] = []

    async def copy(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await target.send(await source.receive())

    async def handle(client: anyio.abc.ByteStream) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            async with client, await anyio.connect_unix(back) as server, anyio.create_task_group() as tasks:
                tasks.start_soon(copy, client, server)
                await copy(server, client)
                tasks.cancel_scope.cancel()

    def cut() -> None:
        for scope in scopes:
            scope.cancel()

    async with await anyio.create_unix_listener(front) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield cut
        tasks.cancel_scope.cancel()


async def test_a_call_survives_a_broken_connection_and_is_done_once(path: Path, connecting: Any) -> None:
    house = House()
    got: list[str] = []
    back = path.with_name("back.sock")
    async with serving(back, house), proxy(path, back) as cut, connecting(path) as client:

        async def hold() -> None:
            got.append(await client.call("House", Hold("h")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await until(lambda: "h" in house.held)
            cut()
            await until(lambda: len(house.peers) >= 1)
            house.held["h"].reply("once")
        cut()
        assert await client.call("House", Echo("x")) == "x"
    assert got == ["once"]
    assert house.asked["Hold"] == 1


async def test_a_call_that_the_server_did_not_survive_has_an_unknown_outcome(path: Path, connecting: Any) -> None:
    house = House()
    codes: list[str] = []

    async def hold(client: Any) -> None:
        with pytest.raises(Failed) as caught:
            await client.call("House", Hold("h"))
        codes.append(caught.value.code)

    async with AsyncExitStack() as later:
        async with anyio.create_task_group() as tasks, serving(path, house):
            client = await later.enter_async_context(connecting(path))
            tasks.start_soon(hold, client)
            await until(lambda: "h" in house.held)
        assert codes == ["connection_lost"]
        with pytest.raises(NoDaemon):
            await client.call("House", Echo("x"))
        async with serving(path, House()):
            assert await client.call("House", Echo("back")) == "back"


# ---------------------------------------------------------------- subscriptions


async def test_an_async_subscription(path: Path) -> None:
    house = House()
    async with serving(path, house), connect(path) as client, client.subscribe(["steps"]) as events:
        house.streams[0].lagged = 3
        house.publish(1)
        assert await anext(events) == Lagged(3)
        assert await anext(events) == TailEvent(topic="steps", at=WHEN, data={"number": 1, "padding": ""})
        with pytest.raises(Failed, match="nothing"):
            async with client.subscribe(["nothing"]):
                pass
        assert await client.call("House", Echo("x")) == "x"
    await until(lambda: house.streams[0].closed)


async def test_a_blocking_subscription(path: Path) -> None:
    house = House()
    async with serving(path, house):
        client = await in_thread(Client.connect, path)
        with client, await in_thread(client.subscribe, ["steps"]) as events:
            house.streams[0].lagged = 3
            house.publish(1)
            assert await in_thread(next, events) == Lagged(3)
            assert (await in_thread(next, events)).data["number"] == 1
            with pytest.raises(Failed, match="nothing"):
                await in_thread(client.subscribe, ["nothing"])
    await until(lambda: house.streams[0].closed)


async def test_subscriptions_end_with_the_server(path: Path) -> None:
    house = House()
    async with AsyncExitStack() as later:
        async with serving(path, house):
            client = await later.enter_async_context(connect(path))
            events = await later.enter_async_context(client.subscribe(["steps"]))
            blocking = await in_thread(Client.connect, path)
            later.callback(blocking.close)
            blocking_events = later.enter_context(await in_thread(blocking.subscribe, ["steps"]))
        assert [event async for event in events] == []
        assert await in_thread(list, blocking_events) == []


# ---------------------------------------------------------------- servers that are none of ours


def answer_once(path: Path, data: bytes) -> threading.Thread:
    """Accept one connection, say this, close."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener, listener.accept()[0] as client:
            client.recv(1 << 16)
            client.sendall(data)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", "connection_lost"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "bad_frame"),
        (encode_frame({"type": "novelty"}), "bad_frame"),
        (encode_frame({"type": "error", "code": "incompatible", "message": "too old"}), "incompatible"),
    ],
)
async def test_whatever_answers_instead_of_a_welcome_is_a_typed_failure(
    path: Path, connecting: Any, said: bytes, code: str
) -> None:
    thread = answer_once(path, said)
    with pytest.raises(Failed) as caught:
        async with connecting(path):
            pass
    thread.join()
    assert caught.value.code == code


# ---------------------------------------------------------------- the quick one


async def test_ask_says_the_same_as_the_typed_client(path: Path) -> None:
    async with serving(path, House()):
        assert await in_thread(ask, path, "House", {"type": "echo", "text": "ahoy"}) == "ahoy"
        assert await in_thread(ask, str(path), "House", {"type": "get_when"}) == "2026-11-23T03:00:00Z"
        with pytest.raises(Failed) as caught:
            await in_thread(ask, path, "House", {"type": "refuse"})
        assert (caught.value.code, caught.value.detail) == ("not_now", {"until": "noon"})


async def test_ask_gives_up_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.quick.GRACE", 0.1)
    async with serving(path, House()):
        with pytest.raises(Failed) as caught:
            await in_thread(ask, path, "House", {"type": "hold", "name": "h"}, 0.1)
        assert caught.value.code == "timed_out"


async def test_ask_hears_that_the_server_closed(path: Path) -> None:
    thread = answer_once(path, b'{"type":"welcome"}\n')
    with pytest.raises(Failed) as caught:
        ask(path, "House", {"type": "echo", "text": "x"})
    thread.join()
    assert caught.value.code == "connection_lost"


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b'{"type":"reply"}\n', b"[]\n", b"\xff\n"])
async def test_ask_says_so_when_it_is_no_stokehold_daemon(path: Path, said: bytes) -> None:
    thread = answer_once(path, said)
    with pytest.raises(Failed, match="is no stokehold daemon") as caught:
        await in_thread(ask, path, "House", {"type": "echo", "text": "x"})
    thread.join()
    assert caught.value.code == "bad_frame"


async def test_ask_takes_a_reply_in_many_pieces(path: Path) -> None:
    text = "x" * 3_000_000
    async with serving(path, House(), max_frame=4 << 20):
        assert await in_thread(ask, path, "House", {"type": "echo", "text": text}) == text


def test_quick_imports_nothing_but_the_standard_library() -> None:
    code = "import sys; import protocol.quick; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "_socket" in loaded
    assert not {"msgspec", "anyio", "argparse", "typing", "socket"} & set(loaded)
