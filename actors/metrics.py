"""The metrics: what each is called and which snapshot it is read from.

A scrape reads the board and the tree's own view and nothing else: no database, no actor, no training process, so it
answers while all of these are wedged. Labels take their values from types and constants of the program, never from
data, and every label set exists from the first scrape on, so that ``rate()`` sees the first increment.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.board import Board
from actors.status import Surroundings, counts, status
from protocol.messages.common import Phase
from protocol.messages.disk import Level
from protocol.messages.queue import QueueCounts
from protocol.messages.system import State, Status, TreeNode
from supervisor import Context

ACTORS: Final = (
    "LockKeeper",
    "DiskMonitor",
    "QueueManager",
    "ControlSocket",
    "TrainerActor",
    "InboxWatcher",
    "Consolidator",
    "MetricsExporter",
    "SignalHandler",
)

End = Literal["normal", "shutdown", "killed", "crash", "start_failed", "timeout"]
ENDS: Final[tuple[End, ...]] = get_args(End)

JOB_EVENTS: Final = (
    "accepted",
    "claimed",
    "trained",
    "committed",
    "requeued",
    "interrupted",
    "uncommitted",
    "failed",
    "retried",
    "cancelled",
)
"""What QueueManager tells on the topic ``queue`` and is worth counting."""

GATES: Final = ("paused", "stop_after_file", "lease", "lease_wanted", "disk", "storage", "device")


class DaemonMetrics(Collector):
    """All metrics of one daemon. Registered once per registry; it outlives restarts of the exporter, as counters must.

    Attributes:
        board: of the daemon.
        exits: ends of incarnations by ``(actor, how)``, counted by the exporter.
        job_events: what happened to jobs, by event, counted by the exporter.
        job_events_missed: how many more came faster than they could be counted.
        context: of the exporter that runs; None while there is none, before the start and after the end.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self._started = time.time()
        self.exits: Counter[tuple[str, str]] = Counter()
        self.job_events: Counter[str] = Counter()
        self.job_events_missed = 0
        self.context: Context | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the registry would otherwise collect at once, before there is a tree."""
        return ()

    def status(self) -> Status | None:
        """Return what the user is told now, or None while there is no tree."""
        if self.context is None:
            return None
        return status(self.board, Surroundings.of(self.context, self.board, home=""))

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield _build_info()
        yield _gauge("start_time_seconds", "When the daemon was started, in seconds since 1970.", self._started)
        now = self.status()
        yield from _state(now)
        yield from self._queue()
        yield from self._disk()
        yield from self._training(now)
        yield from self._actors()

    def _queue(self) -> Iterator[Metric]:
        board = self.board
        now = counts(board)
        files = {queue: getattr(now, queue) for queue in QueueCounts.__struct_fields__}
        yield _gauges("queue_files", "Files in each place of the home.", "queue", files)
        shut = {reason: bool(getattr(board.gate, reason)) for reason in GATES}
        yield _gauges("gate_shut", "1 for each thing that keeps new jobs from being handed out.", "reason", shut)
        events = CounterMetricFamily("stokehold_job_events", "What happened to jobs.", labels=["event"])
        for event in JOB_EVENTS:
            events.add_metric([event], self.job_events[event])
        yield events
        missed = self.job_events_missed
        yield CounterMetricFamily("stokehold_job_events_missed", "Events that came too fast to be counted.", missed)

    def _disk(self) -> Iterator[Metric]:
        disk = self.board.disk
        levels = {name: disk is not None and disk.level == name for name in get_args(Level)}
        yield _gauges("disk_level", "1 for the present level of free space.", "level", levels)
        if disk is None:
            return
        yield _gauge("disk_free_bytes", "Free space on the home's file system.", disk.free_bytes)
        yield _gauge("disk_size_bytes", "Size of the home's file system.", disk.total_bytes)
        yield _gauge("disk_free_inodes", "Free inodes on the home's file system.", disk.free_inodes)
        yield _gauge("disk_reserved_bytes", "Space promised to writes under way.", disk.reserved_bytes)
        yield _gauge("disk_refuse_below_bytes", "Nothing new is trained or saved with less free.", disk.refuse_below)
        yield _gauge("disk_warn_below_bytes", "A warning shows with less free.", disk.warn_below)

    def _training(self, now: Status | None) -> Iterator[Metric]:
        job = now.job if now else None
        phases = {phase: job is not None and job.phase == phase for phase in get_args(Phase)}
        yield _gauges("job_phase", "1 for the phase of the running job.", "phase", phases)
        model = self.board.model
        yield _gauge("model_step", "Optimizer steps of the model's line.", model.step)
        yield _gauge("model_behind_steps", "Optimizer steps trained and not yet published.", model.behind_steps)
        if model.version is not None:
            yield _gauge("model_version", "Number of the published version.", model.version)
        progress = self.board.progress
        if job is None or progress is None:
            return
        yield _gauge("job_steps", "Optimizer steps of the running job.", job.step)
        yield _gauge("job_planned_steps", "Optimizer steps that the running job will have.", job.steps_total)
        yield _gauge("job_samples", "Samples of the running job trained at least once.", job.samples_done)
        yield _gauge("job_planned_samples", "Samples that the running job has.", job.samples_total)
        for name, text, value in (
            ("job_loss", "Loss of the newest step.", job.loss),
            ("job_tokens_per_second", "Trained tokens per second.", job.tokens_per_s),
            ("job_remaining_seconds", "Estimate of how long the running job still takes.", job.eta_s),
            ("job_learning_rate", "Learning rate of the newest step.", progress.learning_rate),
            ("job_gradient_norm", "Norm of the gradient of the newest step.", progress.grad_norm),
        ):
            if value is not None:
                yield _gauge(name, text, value)

    def _actors(self) -> Iterator[Metric]:
        nodes = dict(_workers(self.context.tree())) if self.context else {}
        up = {actor: actor in nodes and nodes[actor].status == "running" for actor in ACTORS}
        yield _gauges("actor_up", "1 for each actor that runs.", "actor", up)
        waiting = {actor: nodes[actor].mailbox if actor in nodes else 0 for actor in ACTORS}
        yield _gauges("actor_mailbox_messages", "Messages that wait for each actor.", "actor", waiting)
        troubled = {actor: actor in self.board.troubles for actor in ACTORS}
        yield _gauges("actor_trouble", "1 for each actor that has a warning for the user.", "actor", troubled)
        restarts = CounterMetricFamily("stokehold_actor_restarts", "Restarts of each actor.", labels=["actor"])
        exits = CounterMetricFamily("stokehold_actor_exits", "Ends of each actor, by how.", labels=["actor", "reason"])
        for actor in ACTORS:
            restarts.add_metric([actor], nodes[actor].restarts if actor in nodes else 0)
            for end in ENDS:
                exits.add_metric([actor, end], self.exits[actor, end])
        yield restarts
        yield exits


def _state(now: Status | None) -> Iterator[Metric]:
    state = now.state if now else "starting"
    states = {name: name == state for name in get_args(State)}
    yield _gauges("state", "1 for the present state.", "state", states)
    yield _gauge("warnings", "Warnings that status shows.", len(now.warnings) if now else 0)


def _workers(tree: TreeNode) -> Iterator[tuple[str, TreeNode]]:
    if tree.kind == "worker":
        yield tree.id, tree
    for child in tree.children:
        yield from _workers(child)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stokehold_{name}", text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Return a gauge with one label: its values, and the number of each."""
    family = GaugeMetricFamily(f"stokehold_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def _build_info() -> Metric:
    try:
        own = version("stokehold")
    except PackageNotFoundError:  # run from a checkout that was not installed
        own = "unknown"
    family = GaugeMetricFamily("stokehold_build_info", "What runs. Always 1.", labels=["version", "python"])
    family.add_metric([own, platform.python_version()], 1)
    return family
