"""What the tasks of an actor do while it ends is a part of its end: nothing that they raise is lost."""

from __future__ import annotations

import anyio
import pytest

from supervisor import ChildSpec, SupervisorSpec, open_tree
from supervisor.reasons import Reason
from supervisor.testing import EventLog
from tests.supervisor.helpers import Counter, Fail, Incarnation, StopYourself

pytestmark = pytest.mark.anyio


class FailsToCleanUp(Counter):
    """Its first incarnation has a task that cannot close what it has open."""

    async def on_start(self) -> None:
        if self.context.incarnation == 1:
            runs = anyio.Event()
            self.context.spawn(self._beside, runs)
            await runs.wait()

    async def _beside(self, runs: anyio.Event) -> None:
        runs.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("the last bytes are not on the disk")


def _transient(actor: type[Counter]) -> SupervisorSpec:
    return SupervisorSpec("root", [ChildSpec("a", actor, restart="transient")])


async def test_a_failing_clean_up_of_a_task_makes_a_clean_end_a_crash() -> None:
    async with open_tree(_transient(FailsToCleanUp)) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(StopYourself())
        await log.wait_for(event="started", actor="a", incarnation=2)
        (report,) = log.topic("crashes")
        assert (report["error"], report["will_restart"]) == ("OSError", True)


async def test_a_failing_clean_up_of_a_task_does_not_hide_the_first_error() -> None:
    async with open_tree(_transient(FailsToCleanUp)) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail("the first"))
        await log.wait_for(event="started", actor="a", incarnation=2)
        report = log.topic("crashes")[-1]
        assert report["error"] == "ValueError"
        assert "OSError: the last bytes are not on the disk" in report["traceback"]


async def test_a_task_that_crashes_while_on_stop_runs_is_a_crash() -> None:
    class Crashes(Counter):
        stops: anyio.Event
        crashed: anyio.Event

        async def on_start(self) -> None:
            self.stops, self.crashed = anyio.Event(), anyio.Event()
            self.context.spawn(self._beside)

        async def on_stop(self, reason: Reason) -> None:
            self.stops.set()
            await self.crashed.wait()

        async def _beside(self) -> None:
            await self.stops.wait()
            self.crashed.set()
            raise KeyError("beside")

    async with open_tree(_transient(Crashes)) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(StopYourself())
        await log.wait_for(event="started", actor="a", incarnation=2)
        assert log.topic("crashes")[0]["error"] == "KeyError"


async def test_a_task_that_is_spawned_in_the_clean_up_of_another_ends_too() -> None:
    class Spawns(Counter):
        async def on_start(self) -> None:
            runs = anyio.Event()
            self.context.spawn(self._beside, runs)
            await runs.wait()

        async def _beside(self, runs: anyio.Event) -> None:
            runs.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.context.spawn(anyio.sleep_forever)

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Spawns)])) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="a", incarnation=2)
        assert await tree.ref("a").call(Incarnation()) == 2
