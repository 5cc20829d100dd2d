"""The cells of names: found, forgotten and found again."""

from __future__ import annotations

import gc
import weakref

import pytest

from protocol.backend import current_backend
from supervisor import Down, Normal, Shutdown
from supervisor.mailbox import Phase
from supervisor.registry import Registry
from supervisor.testing import VirtualClock

pytestmark = pytest.mark.anyio


def _registry() -> Registry:
    return Registry(VirtualClock(), current_backend())


async def test_a_cell_is_the_same_before_while_and_after_a_child_of_its_name_exists() -> None:
    registry = _registry()
    cell = registry.cell("a")
    assert registry.cell("a") is cell
    assert registry.cell("b") is not cell
    assert not registry.knows("a")
    assert registry.declare("a") is cell
    assert registry.knows("a")
    assert registry.declare("a") is registry.cell("a") is cell
    assert "a" not in registry._forgotten, "kept once, not twice"
    registry.forget("a")
    assert not registry.knows("a")
    assert registry.cell("a") is registry.declare("a") is cell
    assert (cell.name, cell.phase, cell.deadlines.monotonic(), cell.clock.monotonic()) == ("a", Phase.ENDED, 0, 0)


async def test_one_that_nobody_points_at_is_gone_with_its_child() -> None:
    registry = _registry()
    kept = registry.declare("kept")
    gone = weakref.ref(registry.declare("gone"))
    gc.collect()
    assert gone() is not None
    for name in ("kept", "gone", "never there"):
        registry.forget(name)
    gc.collect()
    assert gone() is None
    assert registry.cell("kept") is kept


async def test_watchers_are_told_of_each_end_until_they_are_taken_off() -> None:
    registry, told = _registry(), list[tuple[str, Down]]()
    cell = registry.declare("a")
    cell.phase, cell.incarnation = Phase.RUNNING, 3
    registry.unwatch("nobody", "a")
    for watcher in ("one", "two"):
        registry.watch(watcher, "a", lambda down, watcher=watcher: told.append((watcher, down)))  # type: ignore[misc]
    registry.announce(cell, Normal())
    assert told == [("one", Down("a", Normal(), 3)), ("two", Down("a", Normal(), 3))]
    registry.unwatch("nobody", "a")
    registry.unwatch("one", "a")
    registry.announce(cell, Shutdown("x"))
    assert told[2:] == [("two", Down("a", Shutdown("x"), 3))]
    registry.unwatch("two", "a")
    assert cell.watchers is None, "nothing is kept for nobody"
    registry.announce(cell, Normal())
    assert len(told) == 3


async def test_a_watcher_of_one_that_has_ended_or_never_was_is_told_at_once() -> None:
    registry, told = _registry(), list[Down]()
    registry.watch("one", "never", told.append)
    cell = registry.declare("a")
    registry.announce(cell, Normal())
    registry.watch("one", "a", told.append)
    assert told == [Down("never", Shutdown("not running"), 0), Down("a", Normal(), 0)]


async def test_dead_letters_are_counted_by_reason() -> None:
    registry = _registry()
    for why in ("stopping", "refused", "stopping"):
        registry.cell("a").dead_letter(object(), why)
    assert registry.dead_letters == {"stopping": 2, "refused": 1}
