"""OTP's matrix of significant children, their exits and ``auto_shutdown``."""

from __future__ import annotations

import pytest

from supervisor import ChildSpec, Shutdown, SupervisorSpec, open_tree
from supervisor.testing import EventLog, settle
from tests.supervisor.helpers import Counter, Fail, StopYourself

pytestmark = pytest.mark.anyio


def _spec(mode: str, restart: str, *, significant: bool = True) -> SupervisorSpec:
    children = [
        ChildSpec("s1", Counter, restart=restart, significant=significant),  # type: ignore[arg-type]
        ChildSpec("plain", Counter),
        ChildSpec("s2", Counter, restart=restart, significant=significant),  # type: ignore[arg-type]
    ]
    return SupervisorSpec("root", children, auto_shutdown=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["any_significant", "all_significant"])
@pytest.mark.parametrize("how", ["clean", "crash"])
@pytest.mark.parametrize("restart", ["transient", "temporary"])
async def test_what_ends_the_supervisor(restart: str, how: str, mode: str) -> None:
    async with open_tree(_spec(mode, restart)) as tree:
        log = EventLog(tree.stream)
        counts = how == "clean" or restart == "temporary"
        tree.ref("s1").cast(Fail() if how == "crash" else StopYourself())
        await log.wait_for(event="exited", actor="s1")
        await settle()
        if not counts:
            assert {child.id: child.status for child in tree.view().children}["s1"] == "running"
            return
        if mode == "all_significant":
            assert tree.view().status == "running", "one is left"
            tree.ref("s2").cast(Fail() if how == "crash" else StopYourself())
        report = await tree.wait()
        assert isinstance(report.reason, Shutdown)
        assert report.exit_code == 0, "this is an end, and no giving up"


async def test_a_child_that_is_not_significant_ends_nothing() -> None:
    async with open_tree(_spec("any_significant", "transient", significant=False)) as tree:
        tree.ref("s1").cast(StopYourself())
        tree.ref("s2").cast(StopYourself())
        await settle()
        assert tree.view().status == "running"


async def test_termination_by_request_ends_nothing() -> None:
    async with open_tree(_spec("any_significant", "transient")) as tree:
        await tree.supervisor("root").terminate_child("s1")
        await tree.supervisor("root").terminate_child("s2")
        await settle()
        assert tree.view().status == "running"


async def test_being_stopped_by_a_sibling_ends_nothing() -> None:
    children = [
        ChildSpec("a", Counter),
        ChildSpec("s", Counter, restart="temporary", significant=True),
    ]
    spec = SupervisorSpec("root", children, strategy="one_for_all", auto_shutdown="any_significant")
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="a")
        await settle()
        assert tree.view().status == "running"


@pytest.mark.parametrize("significant", [True, False])
async def test_it_climbs_only_through_a_significant_supervisor(significant: bool) -> None:
    inner = SupervisorSpec(
        "inner",
        [ChildSpec("s", Counter, restart="transient", significant=True)],
        auto_shutdown="any_significant",
        restart="transient",
        significant=significant,
    )
    async with open_tree(SupervisorSpec("root", [inner], auto_shutdown="any_significant")) as tree:
        log = EventLog(tree.stream)
        tree.ref("s").cast(StopYourself())
        await log.wait_for(event="exited", actor="inner")
        await settle()
        if significant:
            assert (await tree.wait()).exit_code == 0
        else:
            assert tree.view().status == "running"
            assert tree.view().children[0].status == "stopped"
