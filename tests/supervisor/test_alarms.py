"""Alarms: many times on one timer, of which none may be lost."""

from __future__ import annotations

import time
from functools import partial

import anyio
import pytest

from supervisor.alarms import Alarms
from supervisor.clock import SystemClock
from supervisor.testing import VirtualClock


@pytest.mark.anyio
async def test_alarms_go_off_in_order_and_cancelled_ones_never() -> None:
    clock, heard = VirtualClock(), list[str]()
    alarms = Alarms(clock)
    alarms.at(3.0, lambda: heard.append("third"))
    alarms.at(1.0, lambda: heard.append("first"))
    cancelled = alarms.at(2.0, lambda: heard.append("cancelled"))
    cancelled.cancel()
    cancelled.cancel()
    await clock.advance(1.5)
    assert heard == ["first"]
    await clock.advance(2.0)
    assert heard == ["first", "third"]
    alarms.at(1.0, lambda: heard.append("late"))
    await clock.advance(0.0)
    assert heard == ["first", "third", "late"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_callback_that_fails_takes_no_other_alarm_with_it(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:  # in a loop of its own: that of the tests takes such an error for one of the test
        alarms, after_it = Alarms(SystemClock()), anyio.Event()

        def fail() -> None:
            raise LookupError("nothing was heard")

        now = time.monotonic()
        alarms.at(now + 0.01, fail)
        alarms.at(now + 0.02, after_it.set)
        with anyio.fail_after(5):
            await after_it.wait()

    anyio.run(main, backend=backend)
    assert "nothing was heard" in caplog.text


@pytest.mark.anyio
async def test_an_alarm_that_is_cancelled_at_its_very_moment_does_not_go_off() -> None:
    clock, heard = VirtualClock(), list[str]()
    alarms = Alarms(clock)
    alarms.at(1.0, lambda: second.cancel())
    second = alarms.at(1.0, lambda: heard.append("cancelled"))
    await clock.advance(2.0)
    assert heard == []


@pytest.mark.anyio
async def test_cancelled_alarms_hold_nothing_and_do_not_pile_up() -> None:
    clock = VirtualClock()
    alarms = Alarms(clock)
    for _ in range(10_000):
        alarms.at(30.0, lambda: None).cancel()
    assert len(alarms.deadlines) < 1_000


@pytest.mark.anyio
async def test_nothing_goes_off_once_they_are_closed() -> None:
    clock, heard = VirtualClock(), list[str]()
    alarms = Alarms(clock)
    alarms.at(1.0, lambda: heard.append("closed"))
    alarms.close()
    await clock.advance(2.0)
    assert heard == []


@pytest.mark.anyio
async def test_alarms_go_off_in_the_order_of_their_times_in_whatever_order_they_are_set() -> None:
    clock, heard = VirtualClock(), list[int]()
    alarms = Alarms(clock)
    moments = [5, 9, 1, 7, 3, 8, 2, 6, 4]
    set_ = {moment: alarms.at(float(moment), partial(heard.append, moment)) for moment in moments}
    set_[1].cancel()
    set_[7].cancel()
    await clock.advance(10.0)
    assert heard == [2, 3, 4, 5, 6, 8, 9]


@pytest.mark.anyio
async def test_one_that_lasts_does_not_keep_the_cancelled_ones_after_it() -> None:
    clock = VirtualClock()
    alarms = Alarms(clock)
    lasting = alarms.at(20.0, lambda: None)
    for number in range(10_000):
        alarms.at(30.0 + number, lambda: None).cancel()
    assert not lasting.done
    assert len(alarms.deadlines) < 1_000
