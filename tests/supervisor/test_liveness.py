"""Progress is measured by beats, per phase, on the clock of the tree."""

from __future__ import annotations

import math
import threading

import anyio.lowlevel
import pytest

from supervisor.liveness import Liveness
from supervisor.reasons import Reason
from supervisor.testing import VirtualClock

pytestmark = pytest.mark.anyio


class Case:
    def __init__(self, limit: float = 10.0) -> None:
        self.clock = VirtualClock()
        self.killed: list[Reason] = []
        self.liveness = Liveness(self.clock, limit, self.killed.append)
        self.liveness.start()


async def test_silence_ends_it_once_and_says_where() -> None:
    case = Case()
    case.liveness.beat("loading")
    await case.clock.advance(9.9)
    assert case.killed == []
    await case.clock.advance(60)
    assert [str(reason) for reason in case.killed] == ["timeout: no progress for 10 s in phase 'loading'"]


async def test_it_counts_from_the_start_also_without_a_beat() -> None:
    case = Case()
    await case.clock.advance(10.1)
    assert "'started'" in str(case.killed[0])


async def test_beats_keep_it_alive() -> None:
    case = Case()
    for _ in range(20):
        await case.clock.advance(9)
        case.liveness.beat("training")
    assert case.killed == []


async def test_a_phase_may_have_a_limit_of_its_own_shorter_longer_or_none() -> None:
    case = Case()
    case.liveness.beat("compiling", 100)
    await case.clock.advance(99)
    assert case.killed == []
    case.liveness.beat("waiting", math.inf)
    await case.clock.advance(1_000_000)
    assert case.killed == []
    case.liveness.beat("step", 2)
    await anyio.lowlevel.checkpoint()  # the loop hears of the shorter limit
    await case.clock.advance(2.1)
    assert len(case.killed) == 1


async def test_a_beat_may_come_from_another_thread() -> None:
    case = Case()
    await case.clock.advance(9)
    thread = threading.Thread(target=case.liveness.beat, args=("elsewhere", 50))
    thread.start()
    thread.join()
    await case.clock.advance(49)
    assert case.killed == []
    await case.clock.advance(2)
    assert "'elsewhere'" in str(case.killed[0])


async def test_who_stood_still_while_it_should_have_looked_judges_nobody() -> None:
    """The daemon was stopped, or its machine was: the beats of that time wait unread."""
    case = Case()
    await case.clock.advance(5)
    await case.clock.stall(60)
    assert case.killed == []
    await case.clock.advance(9.9)
    case.liveness.beat("training")
    await case.clock.advance(9.9)
    assert case.killed == []
    await case.clock.advance(0.2)
    assert len(case.killed) == 1


async def test_a_stopped_one_kills_nobody() -> None:
    case = Case()
    case.liveness.stop()
    case.liveness.stop()
    await case.clock.advance(100)
    assert case.killed == []
