"""One client that says very much does not keep the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import pytest

from protocol.backend import current_backend
from protocol.framing import HEADER, encode
from protocol.hearing import PIECE, Hangup, Hearing
from protocol.turns import LATELY, PAUSE, Turns
from tests.protocol.house import House, Raw, request, serving, until

pytestmark = pytest.mark.anyio

FLOOD = 3000


async def test_who_asks_once_is_answered_in_the_midst_of_a_flood_which_is_answered_in_order(
    path: Path, encoding: Any
) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as loud, Raw(path, encoding) as quiet:
        for client in (loud, quiet):
            await client.greet()
        flood = b"".join(encode(request(str(n), {"type": "echo", "text": str(n)}), encoding) for n in range(FLOOD))
        await loud.send_bytes(flood[: 1 << 16])
        await quiet.send(request("q", {"type": "echo", "text": "x"}))
        assert (await quiet.receive())["body"] == "x"
        assert house.asked["Echo"] < 300, "the server looked at everything before it answered"
        await loud.send_bytes(flood[1 << 16 :])
        assert [(await loud.receive())["body"] for _ in range(FLOOD)] == [str(n) for n in range(FLOOD)]


async def test_the_end_of_a_flood_is_heard_after_all_of_it(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path, "msgpack") as loud, Raw(path) as other:
        await other.greet()
        await loud.greet()
        asked = b"".join(encode(request(str(n), {"type": "echo", "text": "x"}), "msgpack") for n in range(600))
        await loud.send_bytes(asked + HEADER.pack(0))
        assert [(await loud.receive())["id"] for _ in range(600)] == [str(n) for n in range(600)]
        assert (await loud.receive())["code"] == "bad_frame"
        assert await loud.closed()


async def test_turns_are_put_off_only_while_others_speak() -> None:
    backend = current_backend()
    turns = Turns()
    came: list[str] = []

    def come(name: str) -> Callable[[], None]:
        return lambda: came.append(name)

    turns.begin("one")
    turns._changed = float("-inf")  # long ago
    turns.begin("one")
    assert not turns.contended
    turns.put_off(backend, come("alone"))
    await until(lambda: came == ["alone"])
    turns.begin("other")
    assert turns.contended
    for name in ("first", "second"):
        turns.put_off(backend, come(name))
    await until(lambda: came == ["alone", "first", "second"])


async def test_a_pause_is_made_only_for_who_is_brief(path: Path) -> None:
    turns = Turns()
    turns.begin("one")
    turns.begin("other")
    assert turns.pause == 0, "both want more: nobody has anything of the time between"
    turns.was_brief()
    assert turns.pause == PAUSE
    turns._brief -= LATELY
    assert turns.pause == 0
    turns.was_brief()
    turns._changed -= LATELY
    assert turns.pause == 0, "there is nobody else"


async def test_those_who_all_say_much_do_not_wait_for_nobody(path: Path) -> None:
    house = House()
    ids = count()
    async with serving(path, house), Raw(path, "msgpack") as one, Raw(path, "msgpack") as other:

        async def say_all(client: Raw) -> None:
            flood = b"".join(
                encode(request(str(next(ids)), {"type": "echo", "text": "x"}), "msgpack") for _ in range(FLOOD)
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.send_bytes, flood)
                for _ in range(FLOOD):
                    await client.receive()

        for client in (one, other):
            await client.greet()
        begun = perf_counter()
        for client in (one, other):
            await say_all(client)
        one_by_one = perf_counter() - begun
        begun = perf_counter()
        async with anyio.create_task_group() as tasks:
            for client in (one, other):
                tasks.start_soon(say_all, client)
        assert perf_counter() - begun < 2 * one_by_one


async def test_what_is_heard_is_cut_piece_by_piece() -> None:
    hearing = Hearing(1 << 20)
    hearing.take((HEADER.pack(1) + b"x") * PIECE)
    assert hearing.next() == b"x"
    assert len(hearing._messages) < PIECE
    assert hearing.more
    assert [hearing.next() for _ in range(PIECE - 1)] == [b"x"] * (PIECE - 1)
    assert hearing.next() is None
    assert not hearing.more
    hearing.take(HEADER.pack(1))
    assert hearing.next() is None
    assert hearing.partial
    hearing.take(b"y" + HEADER.pack(0))
    assert hearing.next() == b"y"
    with pytest.raises(Hangup):
        hearing.next()


async def test_one_turn_that_was_put_off_comes_at_a_time_however_many_wait() -> None:
    timers: list[Callable[[], None]] = []

    class Backend:
        def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
            timers.append(callback)

    turns = Turns()
    turns.begin("one")
    turns.was_brief()
    came: list[int] = []
    for number in range(3):
        turns.put_off(Backend(), lambda number=number: came.append(number))  # type: ignore[arg-type]
    while timers:
        assert len(timers) == 1
        timers.pop()()
        assert came == list(range(len(came)))
    assert came == [0, 1, 2]
