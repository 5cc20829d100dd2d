"""A connection on which nothing more can be said is not used again: the client's next call goes over a new one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from protocol.client import Failed, NoDaemon
from protocol.framing import encode_frame
from protocol.wire import WelcomeFrame
from tests.protocol.house import Echo, House, Note, serving, until

pytestmark = pytest.mark.anyio

WELCOME = encode_frame(WelcomeFrame(version=1, server="deaf/1.0", pid=1, instance="deaf"))


@contextmanager
def impostor(path: Path) -> Iterator[socket.socket]:
    """A listening socket behind which the test itself speaks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener
    path.unlink()


async def welcome(listener: socket.socket, *, task_status: anyio.abc.TaskStatus[list[socket.socket]]) -> None:
    """Accept one client, and say hello to it."""
    accepted: list[socket.socket] = []
    task_status.started(accepted)
    await anyio.wait_readable(listener)
    accepted.append(listener.accept()[0])
    accepted[0].sendall(WELCOME)


async def test_after_a_hangup_the_client_connects_anew(path: Path, connecting: Any) -> None:
    async with serving(path, House(), max_frame=4096), connecting(path) as client:
        for _ in range(2):
            with pytest.raises(Failed, match="4096"):
                await client.call("House", Echo("x" * 5000))
        assert await client.call("House", Echo("x")) == "x"


async def test_half_a_message_is_not_continued_with_the_next(
    path: Path, connecting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes nothing for a while, so the message ends in its middle when the time is up."""
    monkeypatch.setattr("protocol.client.GRACE", 0.2)
    monkeypatch.setattr("protocol.aconnection.GRACE", 0.2)
    async with AsyncExitStack() as later:
        with impostor(path) as listener:
            async with anyio.create_task_group() as tasks:
                accepted = await tasks.start(welcome, listener)
                client = await later.enter_async_context(connecting(path))
            later.callback(accepted[0].close)
        with pytest.raises(Failed, match="in time"):
            await client.cast("House", Note("x" * (1 << 20)))
        async with serving(path, House()):
            assert await client.call("House", Echo("x")) == "x"


async def test_what_is_unreadable_ends_the_connection(path: Path, connecting: Any) -> None:
    async with AsyncExitStack() as later:
        with impostor(path) as listener:
            async with anyio.create_task_group() as tasks:
                accepted = await tasks.start(welcome, listener)
                client = await later.enter_async_context(connecting(path))
            later.callback(accepted[0].close)
            accepted[0].sendall(bytes(4))
            with pytest.raises(Failed, match="unreadable"):
                await client.call("House", Echo("x"))
        async with serving(path, House()):
            assert await client.call("House", Echo("x")) == "x"


async def test_who_only_casts_finds_a_restarted_server(path: Path, connecting: Any) -> None:
    house = House()
    async with AsyncExitStack() as later:
        async with serving(path, House()):
            client = await later.enter_async_context(connecting(path))
        with pytest.raises((Failed, NoDaemon)):
            await client.cast("House", Note("to nobody"))
        async with serving(path, house):
            await client.cast("House", Note("ahoy"))
            await until(lambda: house.notes == ["ahoy"])
