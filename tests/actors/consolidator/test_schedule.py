"""When the night's work is due: pure functions of the local time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors.consolidator.schedule import Plan, day_of, due, next_due, overdue

ZONE = timezone(timedelta(hours=2))
AFTER = "03:00"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE)


def test_a_day_begins_when_the_clock_shows_the_time() -> None:
    assert day_of(at("2026-05-10T02:59:59"), AFTER) == date(2026, 5, 9)
    assert day_of(at("2026-05-10T03:00:00"), AFTER) == date(2026, 5, 10)


@pytest.mark.parametrize("born", ["2026-05-10T02:00:00", "2026-05-10T03:00:00", "2026-05-10T23:00:00"])
def test_first_at_the_first_such_time_after_the_home_was_made(born: str) -> None:
    plan = Plan(first_day=day_of(at(born), AFTER))
    first = at("2026-05-10T03:00:00") if born < "2026-05-10T03" else at("2026-05-11T03:00:00")
    assert not due(plan, at(born), AFTER)
    assert not due(plan, first - timedelta(seconds=1), AFTER)
    assert due(plan, first, AFTER)
    assert next_due(plan, at(born), AFTER) == first


def test_once_a_day_and_late_if_it_could_not_be_on_time() -> None:
    plan = Plan(first_day=date(2026, 5, 1), last_day=date(2026, 5, 9))
    assert due(plan, at("2026-05-10T17:30:00"), AFTER), "the whole day long, once all is idle"
    done = Plan(first_day=date(2026, 5, 1), last_day=date(2026, 5, 10))
    assert not due(done, at("2026-05-10T17:30:00"), AFTER)
    assert not due(done, at("2026-05-11T02:59:00"), AFTER)
    assert due(done, at("2026-05-11T03:00:00"), AFTER)
    assert next_due(done, at("2026-05-10T17:30:00"), AFTER) == at("2026-05-11T03:00:00")


def test_a_clock_set_back_a_little_makes_no_second_night() -> None:
    done = Plan(first_day=date(2026, 5, 1), last_day=date(2026, 5, 10))
    assert not due(done, at("2026-05-10T02:59:00"), AFTER)


def test_a_clock_that_was_years_ahead_does_not_stop_it_for_years() -> None:
    assert due(Plan(first_day=date(2031, 1, 1), last_day=date(2031, 1, 2)), at("2026-05-10T03:00:00"), AFTER)


def test_how_long_it_has_been_due() -> None:
    plan = Plan(first_day=date(2026, 5, 1), last_day=date(2026, 5, 9))
    assert overdue(plan, at("2026-05-10T02:59:00"), AFTER) == timedelta()
    assert overdue(plan, at("2026-05-10T03:30:00"), AFTER) == timedelta(minutes=30)
    assert overdue(plan, at("2026-05-11T04:00:00"), AFTER) == timedelta(hours=25), "the nights that passed count"
    assert overdue(Plan(first_day=date(2026, 5, 9)), at("2026-05-10T05:00:00"), AFTER) == timedelta(hours=2)
    wrong = Plan(first_day=date(2031, 1, 1))
    assert overdue(wrong, at("2026-05-10T05:00:00"), AFTER) == timedelta(hours=2), "a clock that was years ahead"


@given(
    some.integers(0, 365 * 48),
    some.sampled_from(["00:00", "02:00", "02:30", "03:00", "23:59"]),
    some.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_every_day_has_exactly_one_night_whatever_summer_time_does(half_hours: int, after: str, zone: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=30 * half_hours)
    plan = Plan(first_day=day_of(now.astimezone(ZoneInfo(zone)), after))
    nights = []
    for _ in range(4 * 24 * 2):
        now += timedelta(minutes=30)
        local = now.astimezone(ZoneInfo(zone))
        if due(plan, local, after):
            nights.append(day_of(local, after))
            plan = Plan(first_day=plan.first_day, last_day=nights[-1])
    assert len(nights) == (day_of(local, after) - plan.first_day).days
    assert nights == [plan.first_day + timedelta(days=1 + number) for number in range(len(nights))]
