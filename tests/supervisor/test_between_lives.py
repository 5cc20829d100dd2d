"""What those who call and cast are told between the moment at which an end begins and the next start."""

from __future__ import annotations

import logging

import anyio
import pytest

from supervisor import (
    BootRefused,
    ChildSpec,
    Restarting,
    Stopping,
    SupervisorSpec,
    TreeStartFailed,
    open_tree,
)
from supervisor.testing import Gate, VirtualClock, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold, Put, StopYourself
from tests.supervisor.otp.kit import gated

pytestmark = pytest.mark.anyio


async def test_what_is_cast_to_a_sibling_that_finishes_its_message_is_kept() -> None:
    actors: list[Counter] = []

    class Kept(Counter):
        async def on_start(self) -> None:
            actors.append(self)

    children = [ChildSpec("a", Counter), ChildSpec("b", Kept)]
    async with open_tree(SupervisorSpec("root", children, strategy="one_for_all"), clock=VirtualClock()) as tree:
        held = tree.ref("b").request(Hold(), timeout=60)
        await settle()
        tree.ref("a").cast(Fail())
        await settle()
        tree.ref("b").cast(Put(1))
        with pytest.raises(Restarting):
            await tree.ref("b").call(GetAll())
        actors[0].hold.set()
        assert await held == 1
        await settle()
        assert await tree.ref("b").call(GetAll()) == [1]


async def test_one_that_ends_cleanly_and_is_not_started_again_is_stopping_and_not_restarting() -> None:
    class Slow(Counter):
        async def on_stop(self, reason: object) -> None:
            await self.hold.wait()

    actor = Slow()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: actor, restart="transient")])
    async with open_tree(spec, clock=VirtualClock()) as tree:
        tree.ref("a").cast(StopYourself())
        await settle()
        with pytest.raises(Stopping):
            await tree.ref("a").call(GetAll())
        tree.ref("a").cast(Put(1))
        assert tree.dead_letters == {"stopping": 1}
        actor.hold.set()
        await settle()


async def test_calls_do_not_wait_for_a_restart() -> None:
    gate = Gate()
    async with open_tree(SupervisorSpec("root", [gated("a", gate)]), clock=VirtualClock()) as tree:
        gate.shut()
        tree.inject_fault("a", ValueError("x"))
        await settle()
        assert gate.starts == 2, "it is in the middle of its start"
        with pytest.raises(Restarting), anyio.fail_after(5):
            await tree.ref("a").call(GetAll())
        gate.open()
        await settle()


@pytest.mark.parametrize(("error", "reports"), [(BootRefused("no", exit_code=2), []), (OSError("no"), ["a"])])
async def test_a_refused_boot_is_no_crash_and_the_failure_of_a_child_is_reported_once(
    error: Exception, reports: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not again for each supervisor above it."""
    gate = Gate()
    gate.fail_next(error)
    inner = SupervisorSpec("inner", [gated("a", gate)])
    with caplog.at_level(logging.ERROR, logger="supervisor"):
        with pytest.raises((BootRefused, TreeStartFailed)):
            async with open_tree(SupervisorSpec("root", [inner])):
                pass
    assert [record.getMessage().split()[0] for record in caplog.records] == reports
