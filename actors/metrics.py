"""The metrics: what each is called and which snapshot it is read from.

A scrape reads the board and the tree's own view and nothing else: no database, no actor, no training process, so it
answers while all of these are wedged. Labels take their values from types and constants of the program, never from
data, and every label set exists from the first scrape on, so that ``rate()`` sees the first increment.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.board import Board
from actors.status import Surroundings, counts, status
from protocol.messages.common import Phase
from protocol.messages.disk import Level
from protocol.messages.queue import QueueCounts
from protocol.messages.system import State, Status
from supervisor import Context
from supervisor.metrics import TreeMetrics
from supervisor.tally import Figures, Series

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


class DaemonMetrics(TreeMetrics):
    """All metrics of one daemon. Registered once per registry; it outlives restarts of the exporter, as counters must.

    Attributes:
        board: of the daemon.
        job_events: what happened to jobs, by event, counted by the exporter.
        job_events_missed: how many more came faster than they could be counted.
        context: of the exporter that runs; None while there is none, before the start and after the end.
    """

    def __init__(self, board: Board) -> None:
        super().__init__("stokehold")
        self.board = board
        self._started = time.time()
        self.job_events: Counter[str] = Counter()
        self.job_events_missed = 0
        self.context: Context | None = None

    def figures(self) -> list[Figures]:
        """Return what the tree tells, and each actor of the daemon from the first scrape on."""
        known = super().figures()
        missing = set(ACTORS).difference(one.series.name for one in known)
        return [*known, *(Figures(Series(name)) for name in ACTORS if name in missing)]

    def status(self) -> Status | None:
        """Return what the user is told now, or None while there is no tree."""
        if self.context is None:
            return None
        return status(self.board, Surroundings.of(self.context, self.board, home=""))

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield _build_info()
        yield self.gauge("start_time_seconds", "When the daemon was started, in seconds since 1970.", self._started)
        now = self.status()
        yield from self._state(now)
        yield from self._queue()
        yield from self._disk()
        yield from self._training(now)
        yield self._troubles()
        yield from super().collect()

    def _queue(self) -> Iterator[Metric]:
        board = self.board
        now = counts(board)
        files = {queue: getattr(now, queue) for queue in QueueCounts.__struct_fields__}
        yield self.gauges("queue_files", "Files in each place of the home.", "queue", files)
        shut = {reason: bool(getattr(board.gate, reason)) for reason in GATES}
        yield self.gauges("gate_shut", "1 for each thing that keeps new jobs from being handed out.", "reason", shut)
        events = {event: self.job_events[event] for event in JOB_EVENTS}
        yield self.counters("job_events", "What happened to jobs.", "event", events)
        missed = self.job_events_missed
        yield CounterMetricFamily("stokehold_job_events_missed", "Events that came too fast to be counted.", missed)

    def _disk(self) -> Iterator[Metric]:
        disk = self.board.disk
        levels = {name: disk is not None and disk.level == name for name in get_args(Level)}
        yield self.gauges("disk_level", "1 for the present level of free space.", "level", levels)
        if disk is None:
            return
        yield self.gauge("disk_free_bytes", "Free space on the home's file system.", disk.free_bytes)
        yield self.gauge("disk_size_bytes", "Size of the home's file system.", disk.total_bytes)
        yield self.gauge("disk_free_inodes", "Free inodes on the home's file system.", disk.free_inodes)
        yield self.gauge("disk_reserved_bytes", "Space promised to writes under way.", disk.reserved_bytes)
        yield self.gauge(
            "disk_refuse_below_bytes", "Nothing new is trained or saved with less free.", disk.refuse_below
        )
        yield self.gauge("disk_warn_below_bytes", "A warning shows with less free.", disk.warn_below)

    def _training(self, now: Status | None) -> Iterator[Metric]:
        job = now.job if now else None
        phases = {phase: job is not None and job.phase == phase for phase in get_args(Phase)}
        yield self.gauges("job_phase", "1 for the phase of the running job.", "phase", phases)
        model = self.board.model
        yield self.gauge("model_step", "Optimizer steps of the model's line.", model.step)
        yield self.gauge("model_behind_steps", "Optimizer steps trained and not yet published.", model.behind_steps)
        if model.version is not None:
            yield self.gauge("model_version", "Number of the published version.", model.version)
        progress = self.board.progress
        if job is None or progress is None:
            return
        yield self.gauge("job_steps", "Optimizer steps of the running job.", job.step)
        yield self.gauge("job_planned_steps", "Optimizer steps that the running job will have.", job.steps_total)
        yield self.gauge("job_samples", "Samples of the running job trained at least once.", job.samples_done)
        yield self.gauge("job_planned_samples", "Samples that the running job has.", job.samples_total)
        for name, text, value in (
            ("job_loss", "Loss of the newest step.", job.loss),
            ("job_tokens_per_second", "Trained tokens per second.", job.tokens_per_s),
            ("job_remaining_seconds", "Estimate of how long the running job still takes.", job.eta_s),
            ("job_learning_rate", "Learning rate of the newest step.", progress.learning_rate),
            ("job_gradient_norm", "Norm of the gradient of the newest step.", progress.grad_norm),
        ):
            if value is not None:
                yield self.gauge(name, text, value)

    def _state(self, now: Status | None) -> Iterator[Metric]:
        state = now.state if now else "starting"
        states = {name: name == state for name in get_args(State)}
        yield self.gauges("state", "1 for the present state.", "state", states)
        yield self.gauge("warnings", "Warnings that status shows.", len(now.warnings) if now else 0)

    def _troubles(self) -> Metric:
        troubled = {actor: actor in self.board.troubles for actor in ACTORS}
        return self.gauges("actor_trouble", "1 for each actor that has a warning for the user.", "actor", troubled)


def _build_info() -> Metric:
    try:
        own = version("stokehold")
    except PackageNotFoundError:  # run from a checkout that was not installed
        own = "unknown"
    family = GaugeMetricFamily("stokehold_build_info", "What runs. Always 1.", labels=["version", "python"])
    family.add_metric([own, platform.python_version()], 1)
    return family
