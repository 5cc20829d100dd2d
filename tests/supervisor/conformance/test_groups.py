"""Strategies, the limit on restarts, and significant children."""

from __future__ import annotations

import anyio
import pytest

from supervisor import Shutdown, SupervisorSpec, open_tree
from supervisor.spec import RestartType, Strategy
from supervisor.testing import EventLog, settle
from tests.supervisor.conformance.kit import How, Kind, Plan, end, exited, lives, started, statuses, told
from tests.supervisor.processes import next_life, tree_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("strategy", "fallen", "renewed"),
    [("one_for_one", "b", "b"), ("rest_for_one", "bdc", "bcd"), ("one_for_all", "bdca", "abcd")],
)
async def test_who_is_restarted_and_in_which_order(kind: Kind, strategy: Strategy, fallen: str, renewed: str) -> None:
    async with tree_of(*kind.children(*"abcd"), strategy=strategy) as tree:
        log = EventLog(tree.stream)
        end(tree, "b")
        await log.wait_for(event="started", actor=renewed[-1])
        assert told(log) == [*exited(fallen), *started(renewed)]
        assert await lives(tree) == {name: 2 if name in renewed else 1 for name in "abcd"}


async def test_a_temporary_sibling_is_stopped_and_forgotten(kind: Kind) -> None:
    children = [kind.child("a"), kind.child("b", restart="temporary"), kind.child("c", restart="transient")]
    async with tree_of(*children, strategy="one_for_all") as tree:
        log = EventLog(tree.stream)
        end(tree, "a")
        await log.wait_for(event="started", actor="c")
        assert told(log) == [*exited("acb"), *started("ac")]
        assert await lives(tree) == {"a": 2, "c": 2}


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        ("one_for_all", [*exited("acb"), "started a", *exited("ba"), *started("abc")]),
        ("rest_for_one", [*exited("acb"), "started a", "exited b", *started("bc")]),
    ],
)
async def test_another_child_fails_to_start_in_the_course_of_it(
    kind: Kind, strategy: Strategy, steps: list[str]
) -> None:
    children = [kind.child("a"), kind.child("b", Plan({}, {"fail": "not yet"})), kind.child("c")]
    async with tree_of(*children, strategy=strategy) as tree:
        log = EventLog(tree.stream)
        end(tree, "a")
        await log.wait_for(event="started", actor="c")
        assert told(log) == steps


async def test_one_restart_more_than_allowed_ends_the_supervisor_and_what_is_below(kind: Kind) -> None:
    async with tree_of(*kind.children(*"abc"), intensity=1, period=600.0) as tree:
        log = EventLog(tree.stream)
        end(tree, "a")
        await log.wait_for(event="started", actor="a")
        end(tree, "b")
        with anyio.fail_after(5):
            report = await tree.wait()
        assert isinstance(report.reason, Shutdown)
        assert report.exit_code == 1
        assert told(log) == ["exited a", "started a", *exited("bca")]
        assert log.read(event="exited", actor="c")[0]["reason"].startswith(
            "shutdown: reached maximum restart intensity"
        )


async def test_a_group_counts_once(kind: Kind) -> None:
    async with tree_of(*kind.children(*"abc"), strategy="one_for_all", intensity=2, period=600.0) as tree:
        log = EventLog(tree.stream)
        for life, name in ((2, "a"), (3, "c")):
            end(tree, name)
            await log.wait_for(event="started", actor="c", incarnation=life)
        assert await lives(tree) == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("restart", ["permanent", "transient"])
async def test_who_gave_up_is_restarted_by_its_own_supervisor_if_it_is_permanent(
    kind: Kind, restart: RestartType
) -> None:
    inner = SupervisorSpec("inner", kind.children("a", "b"), intensity=0, restart=restart)
    async with open_tree(SupervisorSpec("root", [inner, kind.child("c")], intensity=5)) as tree:
        log = EventLog(tree.stream)
        end(tree, "a")
        await log.wait_for(event="exited", actor="inner")
        if restart == "permanent":
            await log.wait_for(event="started", actor="inner", incarnation=2)
            assert told(log) == [*exited("ab"), "exited inner", *started("ab"), "started inner"]
            assert (await next_life(tree.ref("b"), 1))["incarnation"] == 2
        else:
            await settle()
            assert await statuses(tree) == {"inner": "stopped", "c": "running"}
        assert (await lives(tree))["c"] == 1


@pytest.mark.parametrize(
    ("mode", "restart", "how", "ends"),
    [
        ("any_significant", "transient", "normal", True),
        ("any_significant", "transient", "crash", False),
        ("any_significant", "temporary", "crash", True),
        ("all_significant", "temporary", "normal", False),
    ],
)
async def test_the_end_of_a_significant_child(
    kind: Kind, mode: str, restart: RestartType, how: How, ends: bool
) -> None:
    significant = [kind.child(name, restart=restart, significant=True) for name in "ab"]
    async with tree_of(*significant, kind.child("c"), auto_shutdown=mode) as tree:
        log = EventLog(tree.stream)
        end(tree, "a", how)
        await log.wait_for(event="exited", actor="a")
        if not ends and mode == "all_significant":
            await settle()
            assert not tree.stopping
            end(tree, "b", how)
        if ends or mode == "all_significant":
            with anyio.fail_after(5):
                assert (await tree.wait()).exit_code == 0
            assert told(log)[-1] == "exited c" if mode == "all_significant" else told(log)[-2:] == exited("cb")
        else:
            await log.wait_for(event="started", actor="a", incarnation=2)
            assert not tree.stopping


async def test_a_significant_child_that_is_terminated_or_falls_with_a_sibling_ends_nothing(kind: Kind) -> None:
    significant = [kind.child(name, restart="transient", significant=True) for name in "ab"]
    children = [*significant, kind.child("c")]
    async with tree_of(*children, strategy="one_for_all", auto_shutdown="any_significant") as tree:
        log = EventLog(tree.stream)
        end(tree, "c")
        await log.wait_for(event="started", actor="c")
        await tree.supervisor("root").terminate_child("b")
        await settle()
        assert not tree.stopping
        assert await statuses(tree) == {"a": "running", "b": "stopped", "c": "running"}
