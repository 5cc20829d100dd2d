"""How much free space is enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors.disk_levels import Floors, floors, lacking, level, why_critical
from protocol.config import GIB, DiskSection
from protocol.messages.disk import CheckpointCost, Level, Purpose
from supervisor import Space

FLOORS = Floors(refuse=1000, warn=5000, kept=300)


def space(free: int, inodes: int = 1_000_000) -> Space:
    return Space(free, 1 << 50, inodes)


@pytest.mark.parametrize(
    ("before", "free", "expected"),
    [
        (None, 999, "critical"),
        (None, 1000, "low"),
        (None, 4999, "low"),
        (None, 5000, "ok"),
        ("ok", 5000, "ok"),
        ("ok", 4999, "low"),
        ("low", 5499, "low"),
        ("low", 5500, "ok"),
        ("low", 1000, "low"),
        ("low", 999, "critical"),
        ("critical", 1099, "critical"),
        ("critical", 1100, "low"),
        ("critical", 5499, "low"),
        ("critical", 5500, "ok"),
    ],
)
def test_a_level_is_entered_at_its_floor_and_left_a_tenth_above(before: Level | None, free: int, expected: str) -> None:
    assert level(before, space(free), FLOORS) == expected


@given(some.lists(some.integers(995, 1095), min_size=2))
def test_free_space_that_hovers_does_not_stop_and_go(course: list[int]) -> None:
    seen: list[str] = ["critical"]
    for free in course:
        seen.append(level(seen[-1], space(free), FLOORS))  # type: ignore[arg-type]
    assert set(seen) == {"critical"}


def test_running_out_of_inodes_counts_like_running_out_of_bytes() -> None:
    assert level(None, space(1 << 40, 999), FLOORS) == "critical"
    assert level("critical", space(1 << 40, 1050), FLOORS) == "critical"
    assert level(None, space(1 << 40, 1000), FLOORS) == "low"
    assert "999 inodes free" in why_critical(space(1 << 40, 999), FLOORS)


def test_a_file_system_that_does_not_count_inodes_is_not_out_of_them() -> None:
    assert level(None, space(1 << 40, 0), FLOORS) == "ok"


def test_the_defaults_are_10_and_50_gib() -> None:
    found = floors(DiskSection(), None)
    assert (found.refuse, found.warn) == (10 * GIB, 50 * GIB)


def test_a_large_model_raises_the_floors() -> None:
    found = floors(DiskSection(), CheckpointCost(checkpoint_bytes=84 * GIB, version_bytes=14 * GIB))
    assert (found.refuse, found.warn, found.kept) == (182 * GIB, 364 * GIB, 84 * GIB)


def test_a_tiny_model_does_not_raise_a_floor_that_the_user_lowered() -> None:
    settings = DiskSection(refuse_below=100 << 20, warn_below=200 << 20)
    found = floors(settings, CheckpointCost(checkpoint_bytes=31 << 20, version_bytes=11 << 20))
    assert (found.refuse, found.warn) == (100 << 20, 200 << 20)


def test_a_warning_never_comes_later_than_the_refusal() -> None:
    assert floors(DiskSection(refuse_below=100, warn_below=50), None).warn == 100


@pytest.mark.parametrize("purpose", ["job", "save", "publish", "consolidate"])
def test_while_critical_only_a_stop_may_write(purpose: Purpose) -> None:
    assert lacking(0, purpose, space(999), 0, "critical", FLOORS) == "disk: 999 B free, 1.0 KiB needed"
    assert lacking(999, "stop", space(999), 0, "critical", FLOORS) is None
    assert lacking(1000, "stop", space(999), 0, "critical", FLOORS) is not None


def test_a_write_leaves_what_a_stop_needs() -> None:
    assert lacking(700, "save", space(1000), 0, "low", FLOORS) is None
    assert "300 B are held back for a stop" in (lacking(701, "save", space(1000), 0, "low", FLOORS) or "")


def test_what_is_promised_to_others_is_not_free() -> None:
    assert lacking(300, "save", space(1000), 400, "low", FLOORS) is None
    assert lacking(301, "save", space(1000), 400, "low", FLOORS) is not None
    assert lacking(601, "stop", space(1000), 400, "low", FLOORS) is not None


@given(some.integers(1, 1 << 45), some.integers(0, 1 << 45), some.integers(0, 1 << 45))
def test_above_the_floor_a_checkpoint_or_a_version_always_fits(checkpoint: int, version: int, configured: int) -> None:
    floor = floors(DiskSection(refuse_below=configured), CheckpointCost(checkpoint, version))
    for wanted in (checkpoint, version):
        assert lacking(wanted, "save", space(floor.refuse), 0, "low", floor) is None


def test_while_waiting_for_the_margin_the_reason_says_where_work_goes_on() -> None:
    assert why_critical(space(1050), FLOORS) == "disk: 1.0 KiB free, 1.0 KiB needed, work goes on at 1.1 KiB"
