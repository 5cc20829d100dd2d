"""When a file has stood still for long enough, and what its name says."""

from __future__ import annotations

import os
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors.inbox.settling import Settling, is_hidden, read_name
from actors.inbox.validation import Stamp

ID = "01jdh2x9a7k3c5e8f0g1h2j3k4"


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


@pytest.mark.parametrize("name", [".a.jsonl", "a.jsonl.tmp", "a.part", "a.jsonl~", ".git", f".@{ID}-high@a.jsonl.tmp"])
def test_names_of_unfinished_files_are_left_alone(name: str) -> None:
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.tmp.jsonl", "a~2.jsonl", "part.jsonl", f"@{ID}-high@a.jsonl"])
def test_other_names_are_taken(name: str) -> None:
    assert not is_hidden(name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jsonl", ("a.jsonl", "normal", None)),
        ("high/a.jsonl", ("a.jsonl", "high", None)),
        ("low/deep/er/a.jsonl", ("a.jsonl", "low", None)),
        ("other/high/a.jsonl", ("a.jsonl", "normal", None)),
        ("high", ("high", "normal", None)),
        (f"@{ID}-high@a.jsonl", ("a.jsonl", "high", ID)),
        (f"low/@{ID}-normal@a.jsonl", ("a.jsonl", "normal", ID)),
        (f"@{ID}-high@@x-low@b.jsonl", ("@x-low@b.jsonl", "high", ID)),
        (f"@{ID[1:]}-high@a.jsonl", (f"@{ID[1:]}-high@a.jsonl", "normal", None)),
        (f"@{ID}-urgent@a.jsonl", (f"@{ID}-urgent@a.jsonl", "normal", None)),
        (f"@{ID}-high@", (f"@{ID}-high@", "normal", None)),
        (f"@{ID}-high@a\nb.jsonl", ("a\nb.jsonl", "high", ID)),
    ],
)
def test_place_and_name_say_priority_and_id(path: str, expected: tuple[str, str, str | None]) -> None:
    named = read_name(PurePath(path))
    assert (named.file, named.priority, named.submit_id) == expected


def test_a_name_that_is_not_utf8_is_shown_with_its_bytes() -> None:
    assert read_name(PurePath(os.fsdecode(b"caf\xe9.jsonl"))).file == "caf\\xe9.jsonl"
