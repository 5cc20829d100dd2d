"""What the binary hands to an application: signals that are not lost, and a deadline that is kept in any case."""

from __future__ import annotations

import threading
import time

import anyio
import pytest

from supervisor.boot import Deadline, Signals

pytestmark = pytest.mark.anyio


async def test_signals_wait_for_their_reader() -> None:
    signals = Signals()
    signals.put(1)
    signals.put(15)
    assert await signals.receive() == 1
    assert await anext(aiter(signals)) == 15


async def test_a_reader_waits_for_signals() -> None:
    signals = Signals()
    async with anyio.create_task_group() as tasks:

        async def put() -> None:
            await anyio.wait_all_tasks_blocked()
            signals.put(2)

        tasks.start_soon(put)
        assert await signals.receive() == 2


async def test_a_cancelled_reader_takes_none_and_another_may_follow() -> None:
    signals = Signals()
    with anyio.move_on_after(0.01):
        await signals.receive()
    signals.put(15)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await signals.receive()
    assert await signals.receive() == 15


async def test_the_oldest_signals_are_forgotten_first() -> None:
    signals = Signals(bound=3)
    for number in range(5):
        signals.put(number)
    assert [await signals.receive() for _ in range(3)] == [2, 3, 4]


def test_a_deadline_counts_from_its_beginning_and_may_be_changed_later() -> None:
    passed = threading.Event()
    deadline = Deadline(600, passed.set)
    begun = time.monotonic()
    deadline.begin()
    deadline.begin()
    assert not passed.wait(0.1)
    deadline.change(0.3)
    assert passed.wait(5)
    assert 0.25 < time.monotonic() - begun < 3


def test_a_deadline_that_has_not_begun_never_passes() -> None:
    passed = threading.Event()
    Deadline(0.01, passed.set).change(0.02)
    assert not passed.wait(0.2)
