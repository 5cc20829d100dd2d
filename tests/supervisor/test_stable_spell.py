"""After which spell of running the backoff of a child begins anew."""

from __future__ import annotations

import pytest

from supervisor import Actor, Backoff, ChildSpec, Reason, SupervisorSpec, open_tree
from supervisor.testing import EventLog, VirtualClock

pytestmark = pytest.mark.anyio
BACKOFF = Backoff(first=1, factor=2, most=8, jitter=0, reset_after=60)


class _Tidying(Actor):
    """Takes longer to clean up than a stable spell lasts."""

    async def on_stop(self, reason: Reason) -> None:
        await self.context.clock.sleep(70)


@pytest.mark.parametrize(("runs", "wanted"), [(0.0, [1, 2, 4]), (59.9, [1, 2, 4]), (60.0, [1, 1, 1])])
async def test_a_long_clean_up_after_a_crash_is_no_stable_spell(runs: float, wanted: list[float]) -> None:
    clock = VirtualClock()
    child = ChildSpec("a", _Tidying, shutdown="infinity")
    async with open_tree(SupervisorSpec("root", [child], backoff=BACKOFF, period=20), clock=clock) as tree:
        log = EventLog(tree.stream)
        for delay in wanted:
            await clock.advance(runs)
            tree.inject_fault("a", ValueError("soon"))
            await clock.advance(70 + delay)
        assert [entry["delay"] for entry in log.read(event="restarting")] == wanted
        tree.request_shutdown("enough")
        await clock.advance(70)


@pytest.mark.parametrize(("beats_for", "wanted"), [(0.0, [1, 2, 4]), (59.0, [1, 2, 4]), (60.0, [1, 1, 1])])
async def test_a_silence_that_its_liveness_limit_ends_is_no_stable_spell(beats_for: float, wanted: list[float]) -> None:
    clock = VirtualClock()
    actors: list[Actor] = []

    class Hanging(Actor):
        async def on_start(self) -> None:
            actors.append(self)

    child = ChildSpec("a", Hanging, liveness=100)
    async with open_tree(SupervisorSpec("root", [child], backoff=BACKOFF, period=20), clock=clock) as tree:
        log = EventLog(tree.stream)
        for delay in wanted:
            await clock.advance(beats_for)
            actors[-1].context.beat("well so far")
            await clock.advance(100 + delay)
        assert [entry["delay"] for entry in log.read(event="restarting")] == wanted
