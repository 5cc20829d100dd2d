"""The metrics of any tree, for ``prometheus_client``: who runs, how often it was restarted and why, what waits for it.

    metrics = TreeMetrics("shop")
    ChildSpec("MetricsExporter", lambda: MetricsExporter(metrics, port=9465))

serves them on loopback (:mod:`supervisor.exporter`). A program that serves metrics already registers
``TreeMetrics("shop", tree.introspection)`` with its own registry instead, and scrapes on the event loop of the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor.introspection import Introspection
from supervisor.mailbox import LostWhy
from supervisor.tally import Figures, Series

End = Literal["normal", "shutdown", "killed", "crash", "start_failed", "timeout"]
ENDS: Final[tuple[End, ...]] = get_args(End)

DEAD_LETTERS: Final[tuple[LostWhy, ...]] = get_args(LostWhy)
"""Why a message was handled by nobody."""


class TreeMetrics(Collector):
    """A collector over what a tree tells of itself. A scrape asks no actor, so it is answered with any of them wedged.

    All names begin with the prefix; those of counters end on ``_total``:

    - ``actor_up``, ``actor_mailbox_messages``, ``actor_incarnation``, ``actor_uptime_seconds``: gauges by ``actor``.
    - ``actor_restarts``: a counter by ``actor``; ``actor_exits``: one by ``actor`` and ``reason``, which is one of
      ``normal``, ``shutdown``, ``killed``, ``crash``, ``start_failed`` and ``timeout``.
    - ``supervisor_restarts``: a counter by ``supervisor``; ``dead_letters``: one by ``reason``.

    Actors that were started at run time under a supervisor are one series, ``SUPERVISOR/*``: of them ``actor_up`` is
    the number that runs. Every label set is there from the first scrape on: ``rate()`` sees the first increment.

    Attributes:
        introspection: that of the tree; None while there is none. An exporter in the tree sets it.
    """

    def __init__(self, prefix: str = "tree", introspection: Introspection | None = None) -> None:
        self.prefix = prefix
        self.introspection = introspection

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the registry would otherwise collect at once, before there is a tree."""
        return ()

    def figures(self) -> list[Figures]:
        """Return what is shown, actors and supervisors. Overridden where names are known that no tree has named yet."""
        return [] if self.introspection is None else self.introspection.figures()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family of the tree."""
        figures = self.figures()
        actors = {one.series.name: one for one in figures if not one.series.is_supervisor}
        single = {name: one for name, one in actors.items() if not one.series.is_group}
        series = {name: one.series for name, one in actors.items()}
        yield self.gauges("actor_up", "1 for each actor that runs.", "actor", _all(actors, "running"))
        waiting = _all(actors, "mailbox")
        yield self.gauges("actor_mailbox_messages", "Messages that wait for each actor.", "actor", waiting)
        numbers = _all(single, "incarnation")
        yield self.gauges("actor_incarnation", "The number of each actor's newest incarnation.", "actor", numbers)
        uptimes = _all(single, "uptime_s")
        yield self.gauges("actor_uptime_seconds", "How long each actor's incarnation has run.", "actor", uptimes)
        yield self.counters("actor_restarts", "Restarts of each actor.", "actor", _all(series, "restarts"))
        yield self._exits(series.values())
        restarts = {one.series.name: one.series.restarts for one in figures if one.series.is_supervisor}
        yield self.counters("supervisor_restarts", "Restarts of each supervisor.", "supervisor", restarts)
        letters = {} if self.introspection is None else self.introspection.dead_letters()
        letters = {why: letters.get(why, 0) for why in (*DEAD_LETTERS, *letters)}
        yield self.counters("dead_letters", "Messages that nobody handled, by why.", "reason", letters)

    def gauge(self, name: str, text: str, value: float) -> Metric:
        """Return a gauge without labels."""
        return GaugeMetricFamily(f"{self.prefix}_{name}", text, value=value)

    def gauges(self, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        """Return a gauge with one label: its values, and the number of each."""
        family = GaugeMetricFamily(f"{self.prefix}_{name}", text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], float(value))
        return family

    def counters(self, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        """Return a counter with one label: its values, and the count of each."""
        family = CounterMetricFamily(f"{self.prefix}_{name}", text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], float(value))
        return family

    def _exits(self, actors: Iterable[Series]) -> Metric:
        text = "Ends of each actor, by how."
        family = CounterMetricFamily(f"{self.prefix}_actor_exits", text, labels=["actor", "reason"])
        for series in actors:
            for end in ENDS:
                family.add_metric([series.name, end], series.ends[end])
        return family


def _all(objects: Mapping[str, object], attribute: str) -> dict[str, float]:
    return {name: getattr(one, attribute) for name, one in objects.items()}
