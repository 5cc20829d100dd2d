"""OTP's cases of permanent, transient and temporary children, and of restarts within the limit."""

from __future__ import annotations

import pytest

from supervisor import SupervisorSpec, open_tree
from supervisor.testing import VirtualClock
from tests.supervisor.otp.kit import How, child, counts, end, lives, statuses

pytestmark = pytest.mark.anyio

SHUTDOWNS: tuple[How, ...] = ("shutdown", "shutdown_detail")


async def _after(restart: str, *ways: How) -> tuple[dict[str, str], dict[str, int], tuple[int, int, int, int]]:
    """One child is started, and ends in these ways one after another; what is left of it."""
    async with open_tree(SupervisorSpec("root", intensity=2, period=3600)) as tree:
        root = tree.supervisor("root")
        for count, how in enumerate(ways):
            present = await statuses(tree)
            if not present:
                await root.start_child(child("child1", restart=restart))
            elif present["child1"] == "stopped":
                await root.restart_child("child1")
            assert await lives(tree) == {"child1": count + 1}
            await end(tree, "child1", how)
        return await statuses(tree), await lives(tree), await counts(tree)


async def test_permanent_normal() -> None:
    """A permanent child that ends normally is started again."""
    assert await _after("permanent", "normal") == ({"child1": "running"}, {"child1": 2}, (1, 1, 0, 1))


async def test_transient_normal() -> None:
    """A transient child that ends normally stays away; its specification is kept."""
    assert await _after("transient", "normal") == ({"child1": "stopped"}, {"child1": 1}, (1, 0, 0, 1))


async def test_temporary_normal() -> None:
    """A temporary child that ends normally is forgotten."""
    assert await _after("temporary", "normal") == ({}, {}, (0, 0, 0, 0))


async def test_permanent_shutdown() -> None:
    """A permanent child that shuts down is started again, with and without a detail."""
    assert await _after("permanent", *SHUTDOWNS) == ({"child1": "running"}, {"child1": 3}, (1, 1, 0, 1))


async def test_transient_shutdown() -> None:
    """A transient child that shuts down stays away, and can be started by hand."""
    assert await _after("transient", *SHUTDOWNS) == ({"child1": "stopped"}, {"child1": 2}, (1, 0, 0, 1))


@pytest.mark.parametrize("how", SHUTDOWNS)
async def test_temporary_shutdown(how: How) -> None:
    """A temporary child that shuts down is forgotten."""
    assert await _after("temporary", how) == ({}, {}, (0, 0, 0, 0))


async def test_permanent_abnormal() -> None:
    """A permanent child that crashes is started again."""
    assert await _after("permanent", "abnormal") == ({"child1": "running"}, {"child1": 2}, (1, 1, 0, 1))


async def test_transient_abnormal() -> None:
    """A transient child that crashes is started again."""
    assert await _after("transient", "abnormal") == ({"child1": "running"}, {"child1": 2}, (1, 1, 0, 1))


async def test_temporary_abnormal() -> None:
    """A temporary child that crashes is forgotten."""
    assert await _after("temporary", "abnormal") == ({}, {}, (0, 0, 0, 0))


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_temporary_bystander(strategy: str) -> None:
    """A temporary child that falls with its sibling is not started again with it."""
    spec = SupervisorSpec("root", strategy=strategy, intensity=2, period=300)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        await tree.supervisor("root").start_child(child("child1"))
        await tree.supervisor("root").start_child(child("child2", restart="temporary"))
        await end(tree, "child1", "normal")
        assert await lives(tree) == {"child1": 2}
        assert await statuses(tree) == {"child1": "running"}


async def test_multiple_restarts() -> None:
    """A child may fail again and again, as long as each failure finds the one before outside the period."""
    clock = VirtualClock()
    spec = SupervisorSpec("root", [child("child1")], intensity=1, period=1)
    async with open_tree(spec, clock=clock) as tree:
        await end(tree, "child1")
        for _ in range(3):
            await clock.advance(1.001)
            await end(tree, "child1")
        assert await lives(tree) == {"child1": 5}
        await tree.supervisor("root").terminate_child("child1")
        await tree.supervisor("root").delete_child("child1")
        assert await statuses(tree) == {}
