"""Clients that take nothing, or too little: they cost bounded memory, and their end harms nobody."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from protocol.aclient import connect
from protocol.server import Traffic
from tests.protocol.house import Echo, House, Raw, hello, request, serving, until

pytestmark = pytest.mark.anyio

MIB = 1 << 20


class Peak:
    """The most that was allocated at once within a block, in bytes, above what there was at its beginning."""

    bytes = 0


@contextmanager
def measured() -> Iterator[Peak]:
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
        peak.bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_a_blocked_connection_that_the_server_ends_leaves_nothing_in_the_event_loop(path: Path) -> None:
    """Its file descriptor is given to somebody else at once: a wait for room in it that was left over would be his."""
    house = House()
    async with Raw(path, connected=False) as client:
        async with serving(path, house):
            client.connect()
            await client.greet()
            await client.send(*(request(str(number), {"type": "echo", "text": "x" * 500_000}) for number in range(4)))
            await until(lambda: house.asked["Echo"] == 4)
        async with serving(path, House()):
            for _ in range(5):
                async with connect(path) as bystander:
                    assert await bystander.call("House", Echo("fine")) == "fine"


async def test_many_repeats_of_a_question_with_a_large_answer_cost_bounded_memory(path: Path, encoding: Any) -> None:
    """They wait for their turn until the answers before them were taken."""
    house = House()
    asked = request("a1", {"type": "get_much", "size": MIB // 2})
    async with serving(path, house), Raw(path, encoding) as client:
        await client.greet()
        with measured() as peak:
            await client.send(*[asked] * 100, request("a2", {"type": "echo", "text": "x"}))
            for _ in range(100):
                assert len((await client.receive())["body"]) == MIB // 2
            assert (await client.receive())["body"] == "x"
        assert peak.bytes < 16 * MIB
    assert house.asked["GetMuch"] == 1


async def test_many_who_wait_along_on_one_connection_cost_bounded_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.outbox.OVERFULL", 4 * MIB)
    house = House()
    traffic = Traffic()
    async with serving(path, house, traffic), Raw(path) as client:
        await client.greet()
        await client.send(*[request("a1", {"type": "hold", "name": "h"})] * 128, request("b", {"type": "refuse"}))
        assert (await client.receive())["code"] == "busy", "all of them are waiting"
        with measured() as peak:
            house.held["h"].reply("x" * MIB)
            await until(lambda: traffic.open == 0)
        assert peak.bytes < 16 * MIB


async def test_a_subscriber_that_reads_nothing_costs_bounded_memory_however_large_the_events(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path) as silent, Raw(path) as reader:
        for client in (silent, reader):
            await client.greet()
            await client.send({"type": "subscribe", "id": "s1", "topics": ["steps"]})
            await client.receive()
        with measured() as peak:
            for number in range(300):
                house.publish(number, "x" * 100_000)
                assert (await reader.receive())["data"]["number"] == number
        assert peak.bytes < 4 * MIB
        told = await silent.receive()
        number = 0
        while told["type"] == "event":
            assert told["data"]["number"] == number
            number += 1
            told = await silent.receive()
        assert told == {"type": "lagged", "id": "s1", "missed": 300 - number}


async def test_an_event_larger_than_a_subscription_may_hold_still_comes(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path, "msgpack") as client:
        await client.greet()
        await client.send({"type": "subscribe", "id": "s1", "topics": ["steps"]})
        await client.receive()
        for number in range(3):
            house.publish(number, "x" * 2 * MIB)
            with anyio.fail_after(5):
                assert (await client.receive())["data"]["number"] == number


async def test_who_subscribes_and_says_no_more_still_hears_the_events(path: Path, encoding: Any) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as client:
        await client.send(hello(), {"type": "subscribe", "id": "s1", "topics": ["steps"]})
        client.socket.shutdown(socket.SHUT_WR)
        assert [(await client.receive())["type"] for _ in range(2)] == ["welcome", "reply"]
        house.publish(7)
        assert (await client.receive())["data"]["number"] == 7
