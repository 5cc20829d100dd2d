"""When a file has stood still for long enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors.inbox.settling import Settling
from actors.inbox.validation import Stamp


def stamp(size: int = 1, mtime_ns: int = 1, inode: int = 1) -> Stamp:
    return Stamp(1, inode, size, mtime_ns)


def test_a_file_is_ready_when_it_has_stood_still_for_so_long_and_not_before() -> None:
    settling: Settling[str] = Settling()
    assert settling.look(10.0, {"a": (stamp(), 2.0)}) == settling.look(10.0, {"a": (stamp(), 2.0)})
    early = settling.look(11.5, {"a": (stamp(), 2.0)})
    assert (early.ready, early.again_in) == ((), 0.5)
    assert settling.look(12.0, {"a": (stamp(), 2.0)}).ready == ("a",)


@pytest.mark.parametrize("changed", [stamp(size=2), stamp(mtime_ns=2), stamp(inode=2)], ids=["size", "time", "inode"])
def test_a_change_of_size_time_or_identity_begins_the_wait_anew(changed: Stamp) -> None:
    settling: Settling[str] = Settling()
    settling.look(0.0, {"a": (stamp(), 2.0)})
    later = settling.look(1.9, {"a": (changed, 2.0)})
    assert (later.ready, later.again_in) == ((), 2.0)
    assert settling.look(3.8, {"a": (changed, 2.0)}).ready == ()
    assert settling.look(3.9, {"a": (changed, 2.0)}).ready == ("a",)


def test_a_file_that_went_and_came_back_begins_anew() -> None:
    settling: Settling[str] = Settling()
    settling.look(0.0, {"a": (stamp(), 2.0)})
    settling.look(1.0, {})
    assert settling.look(2.0, {"a": (stamp(), 2.0)}).ready == ()


def test_a_file_forgotten_begins_anew() -> None:
    settling: Settling[str] = Settling()
    settling.look(0.0, {"a": (stamp(), 2.0)})
    settling.forget("a")
    assert settling.look(2.0, {"a": (stamp(), 2.0)}).ready == ()


def test_without_a_wait_a_file_is_ready_at_first_sight() -> None:
    assert Settling[str]().look(0.0, {"a": (stamp(), 0.0)}).ready == ("a",)


def test_the_oldest_comes_first_and_of_one_age_by_name() -> None:
    seen = {"c": (stamp(mtime_ns=1), 0.0), "b": (stamp(mtime_ns=2), 0.0), "a": (stamp(mtime_ns=2), 0.0)}
    assert Settling[str]().look(0.0, seen).ready == ("c", "a", "b")


@given(some.lists(some.tuples(some.floats(0.0, 3.0), some.booleans()), min_size=1, max_size=30))
def test_a_file_is_never_ready_sooner_than_its_last_change_allows(looks: list[tuple[float, bool]]) -> None:
    settling: Settling[str] = Settling()
    now, changed_at, version = 0.0, 0.0, 0
    settling.look(now, {"a": (stamp(mtime_ns=version), 2.0)})
    for pause, changes in looks:
        now += pause
        if changes:
            changed_at, version = now, version + 1
        ready = settling.look(now, {"a": (stamp(mtime_ns=version), 2.0)}).ready
        assert bool(ready) == (changed_at + 2.0 - now <= 0)
