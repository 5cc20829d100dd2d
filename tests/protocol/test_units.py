"""Sizes, durations and times of day."""

from __future__ import annotations

from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.units import format_duration, format_size, parse_clock, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("17", 17), ("512B", 512), ("500MB", 500_000_000), ("10GiB", 10 << 30), ("10 GiB", 10 << 30),
        ("1.5GiB", 3 << 29), ("1kB", 1000), ("1KB", 1000), ("1KiB", 1024), ("2TB", 2 * 10**12), ("0.1kB", 100),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "1GB5", "10 G", "1gb", "1e9", "0.5B", "0.1KiB", "١GB", "1,5GB", "10GB0"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30), ("10m", 600), ("10min", 600), ("1h30m", 5400), ("1h 30m", 5400), ("7d", 604800), ("1w", 604800),
        ("250ms", 0.25), ("0.5s", 0.5), ("0s", 0), ("1d12h", 129600), ("1m500ms", 60.5),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-3s", "1 fortnight", "30m1h", "1h1h", "1m1min", "1h,30m", "1e3s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|once"):
        parse_duration(text)


def test_clocks() -> None:
    assert parse_clock("03:00") == time(3, 0)
    assert parse_clock("23:59") == time(23, 59)
    for text in ("3:00", "24:00", "12:60", "3am", "", "12:00:00", "03:00\n0"):
        with pytest.raises(ValueError, match="is not"):
            parse_clock(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"), (1023, "1023B"), (1024, "1KiB"), (10 << 30, "10GiB"), (1536, "1.5KiB"), ((1 << 30) - 1, "1GiB"),
        (1 << 60, "1024PiB"),
    ],
)  # fmt: skip
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.25, "250ms"), (2.5, "2.5s"), (59.99, "1m"), (60, "1m"), (5400, "1h30m"), (604800, "7d"),
        (90061, "1d1h1m1s"), (-30, "-30s"),
    ],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 1 << 62))
def test_a_size_for_people_is_read_back_to_within_its_decimal(size: int) -> None:
    text = format_size(size)
    number = float(text.rstrip("KMGTPiB"))
    assert number < 1024 or text.endswith("PiB")
    unit = size / number if number else 1
    assert abs(_rough(text) - size) <= 0.051 * unit + 1


def _rough(text: str) -> float:
    number = text.rstrip("KMGTPiB")
    return float(number) * parse_size("1" + text[len(number) :])


@given(st.integers(0, 10**8))
def test_whole_seconds_survive_the_way_there_and_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
