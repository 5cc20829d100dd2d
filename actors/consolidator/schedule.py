"""When consolidation is due. Pure: the local time is handed in.

Past ``consolidation.after`` local time, once a day, first at the first such time after the home was made. A day
begins when the clock on the wall shows that time: at 02:00 it is still yesterday's. Days are compared, never
instants, so that an hour that is lost or doubled when summer time changes cannot make two nights of one.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import msgspec

_DAY = timedelta(days=1)


class Plan(msgspec.Struct, frozen=True):
    """What is remembered from run to run."""

    first_day: date
    """The day on which the home was made, or first seen: nothing is due on it."""
    last_day: date | None = None
    """The day whose consolidation is over, whatever came of it."""
    last_at: datetime | None = None
    last_outcome: str | None = None
    last_reason: str | None = None


def day_of(now: datetime, after: str) -> date:
    """Return the day that ``now`` (local) belongs to, of the days that begin at ``after`` (``HH:MM``)."""
    return now.date() if now.time() >= _time(after) else now.date() - _DAY


def due(plan: Plan, now: datetime, after: str) -> bool:
    """Say whether consolidation has to run, as soon as all is idle."""
    today = day_of(now, after)
    return _is_another(today, plan.first_day) and (plan.last_day is None or _is_another(today, plan.last_day))


def overdue(plan: Plan, now: datetime, after: str) -> timedelta:
    """Return for how long consolidation has been due; nothing, if it is not."""
    if not due(plan, now, after):
        return timedelta()
    first = (plan.last_day or plan.first_day) + _DAY
    return now - datetime.combine(min(first, day_of(now, after)), _time(after), tzinfo=now.tzinfo)


def next_due(plan: Plan, now: datetime, after: str) -> datetime:
    """Return when consolidation is due next: now, if it is due; else the next time that the clock shows ``after``."""
    if due(plan, now, after):
        return now
    return datetime.combine(day_of(now, after) + _DAY, _time(after), tzinfo=now.tzinfo)


def _is_another(today: date, before: date) -> bool:
    """A later day; or one so much earlier that the clock was wrong then. A clock set back a little makes no new day."""
    return today > before or today < before - _DAY


def _time(after: str) -> time:
    hours, minutes = after.split(":")
    return time(int(hours), int(minutes))
