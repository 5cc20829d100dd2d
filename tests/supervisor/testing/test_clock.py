"""A virtual clock goes by itself while its tree is closed, and only then."""

from __future__ import annotations

import time

import anyio
import pytest

from supervisor import Actor, ChildSpec, StopIncomplete, SupervisorSpec, open_tree
from supervisor.testing import EventLog, VirtualClock
from tests.supervisor.otp.kit import Naughty, Sleeper, ends

pytestmark = pytest.mark.anyio


class _Ticking(Actor):
    """Takes note of the time ten times a second, and sleeps for ever beside it."""

    async def on_start(self) -> None:
        self.context.spawn(self._tick)
        self.context.spawn(self.context.clock.sleep, float("inf"))

    async def _tick(self) -> None:
        while True:
            await self.context.clock.sleep(0.1)


def _tree(*children: ChildSpec) -> SupervisorSpec:
    return SupervisorSpec("root", children)


async def test_a_failing_assertion_is_told_although_an_actor_does_not_end_in_time() -> None:
    clock = VirtualClock()
    with anyio.fail_after(10), pytest.raises(AssertionError, match="of the test"):
        async with open_tree(_tree(ChildSpec("a", lambda: Sleeper(3600), shutdown=5)), clock=clock) as tree:
            log = EventLog(tree.stream)
            raise AssertionError("of the test")
    assert ends(log, "a") == ["killed"]
    assert clock.monotonic() == 5, "from timer to timer, and no further"


async def test_one_that_ends_on_its_own_time_is_given_it() -> None:
    clock = VirtualClock()
    with anyio.fail_after(10):
        children = [ChildSpec("ticking", _Ticking), ChildSpec("a", lambda: Sleeper(3), shutdown=5)]
        async with open_tree(_tree(*children), clock=clock) as tree:
            log = EventLog(tree.stream)
    assert ends(log, "a") == ["shutdown"]
    assert clock.monotonic() == pytest.approx(3)


async def test_one_that_never_ends_is_named() -> None:
    deaf = Naughty()
    begun = time.monotonic()
    with anyio.fail_after(20), pytest.raises(StopIncomplete, match="a"):
        async with open_tree(_tree(ChildSpec("a", lambda: deaf, shutdown=3600)), clock=VirtualClock()):
            pass
    assert time.monotonic() - begun < 10
    deaf.let_go.set()


async def test_it_stands_still_again_afterwards_and_before() -> None:
    clock = VirtualClock()
    fired: list[float] = []
    clock.call_later(0.01, lambda: fired.append(clock.monotonic()))
    with clock.left_alone(), clock.left_alone():
        pass
    await anyio.sleep(0.05)
    assert fired == []
    with clock.left_alone():
        with clock.left_alone():
            pass
        while not fired:
            await anyio.sleep(0.005)
    clock.call_later(0.01, lambda: fired.append(clock.monotonic()))
    await anyio.sleep(0.05)
    assert fired == [0.01]


async def test_who_moves_it_while_a_tree_is_closed_moves_it_alone() -> None:
    clock = VirtualClock()
    fired: list[float] = []
    with clock.left_alone():
        await clock.advance(1)
        clock.call_later(0.01, lambda: fired.append(clock.monotonic()))
        await anyio.sleep(0.05)
        assert fired == []
        await clock.advance(1)
    assert fired == [1.01]
