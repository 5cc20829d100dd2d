"""How often actors ended, and why, and were restarted: counted by the tree itself, over all incarnations.

The counts are kept in *series*: one for each name that stands in the specification of the tree, and one for all
children together that are started at run time under a supervisor, called that supervisor's name and ``/*``. So their
number has a bound, however many children come and go.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisor.record import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supervisor.reasons import Reason
    from supervisor.record import ChildRecord


@dataclass(slots=True, eq=False)
class Series:
    """What was counted under one name. The numbers only grow."""

    name: str
    is_supervisor: bool = False
    is_group: bool = False
    restarts: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """Of incarnations, by kind of reason."""

    def ended(self, reason: Reason) -> None:
        """An incarnation has ended."""
        self.ends[str(reason.__struct_config__.tag)] += 1


@dataclass(slots=True)
class Figures:
    """One series, and what those that are counted in it do now."""

    series: Series
    running: int = 0
    mailbox: int = 0
    """Messages that wait."""
    incarnation: int = 0
    """The newest one's number. Of a group: 0."""
    uptime_s: float = 0.0
    """Of the one that runs. Of a group: 0."""


class Tally:
    """The series of one tree. What was once in it stays in it, whatever runs."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}

    def root(self, name: str) -> Series:
        """Return the series of the root."""
        return self._known(name, is_supervisor=True, is_group=False)

    def below(self, above: Series, name: str, *, is_supervisor: bool, specified: bool) -> Series:
        """Return the series of a child.

        Args:
            above: that of its supervisor.
            name: its own name.
            is_supervisor: whether it is one itself.
            specified: whether it stands in its supervisor's specification.
        """
        if above.is_group:
            return above
        if specified:
            return self._known(name, is_supervisor=is_supervisor, is_group=False)
        return self._known(f"{above.name}/*", is_supervisor=False, is_group=True)  # no name has a slash in it

    def figures(self, children: Iterable[ChildRecord], now: float) -> list[Figures]:
        """Return every series, with what these children do at this time of the monotonic clock."""
        found = {series: Figures(series) for series in self._series.values()}
        for child in children:
            figures = found[child.series]
            figures.mailbox += len(child.cell.queue)
            figures.running += child.shown_status == Status.RUNNING
            if not child.series.is_group:
                figures.incarnation = child.cell.incarnation
                figures.uptime_s = 0.0 if child.started_at is None else now - child.started_at
        return list(found.values())

    def _known(self, name: str, *, is_supervisor: bool, is_group: bool) -> Series:
        return self._series.setdefault(name, Series(name, is_supervisor, is_group))
