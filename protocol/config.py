"""The settings of a daemon: one immutable, typed snapshot. Reading a file into it is ``protocol.settings``.

Each key carries a mark that says when a change of it takes effect: ``live`` at once, ``next_job`` with the next job
to begin, ``restart`` when the daemon starts again, ``home`` never: it is stamped into the home at its first training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

Mark = Literal["live", "next_job", "restart", "home"]


Unit = Literal["bytes", "seconds", "clock", "plain"]

GIB = 1 << 30


def mark(
    when: Mark,
    *,
    ge: float | None = None,
    le: float | None = None,
    gt: float | None = None,
    lt: float | None = None,
    unit: Unit = "plain",
) -> msgspec.Meta:
    """Return the annotation of a key: its mark, its unit, and the bounds of its value."""
    bounds: dict[str, Any] = {
        name: bound for name, bound in (("ge", ge), ("le", le), ("gt", gt), ("lt", lt)) if bound is not None
    }
    make: Callable[..., msgspec.Meta] = msgspec.Meta  # its overloads do not take bounds by **
    return make(extra={"mark": when, "unit": unit}, **bounds)


def size(when: Mark, *, ge: int = 0) -> msgspec.Meta:
    """A number of bytes. Files may write it ``"10GiB"`` or ``"500MB"``."""
    return mark(when, ge=ge, unit="bytes")


def duration(when: Mark, *, ge: float | None = None, gt: float | None = None) -> msgspec.Meta:
    """A number of seconds. Files may write it ``"30s"``, ``"10m"``, ``"1h30m"`` or ``"7d"``."""
    return mark(when, ge=ge, gt=gt, unit="seconds")


def clock(when: Mark) -> msgspec.Meta:
    """A local time of day, written ``"03:00"``."""
    return mark(when, unit="clock")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


class DaemonSection(Section, frozen=True):
    """[daemon]: the process as a whole."""

    home: Annotated[str, mark("restart")] = ""
    """The home's folder; relative to the configuration file. Empty: the folder that the file lies in."""
    backend: Annotated[Literal["asyncio", "trio"], mark("restart")] = "asyncio"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], mark("live")] = "info"
    log_bytes: Annotated[int, size("restart", ge=64 * 1024)] = 16 << 20
    """Size at which the log is rotated; five old ones are kept."""
    stop_within: Annotated[float, duration("restart", gt=0)] = 600
    """How long a gentle stop may take before what is left is killed and the daemon exits 70."""


class InboxSection(Section, frozen=True):
    """[inbox]: the drop zone."""

    settle: Annotated[float, duration("live", ge=0)] = 2
    """A file is touched only when its size and time have stood still for so long."""
    rescan: Annotated[float, duration("live", gt=0)] = 60
    """The inbox is read anew this often, whatever inotify says."""
    max_line: Annotated[int, size("live", ge=1024)] = 100 << 20
    max_file: Annotated[int, size("live", ge=1024)] = 100 * GIB


class QueueSection(Section, frozen=True):
    """[queue]: attempts and what is kept."""

    max_attempts: Annotated[int, mark("live", ge=1, le=100)] = 3
    keep_done: Annotated[float, duration("live", ge=0)] = 7 * 86400
    """How long a trained file stays in ``queue/done/``."""


class DiskSection(Section, frozen=True):
    """[disk]: when to warn, when to stop writing."""

    refuse_below: Annotated[int, size("live", ge=0)] = 10 * GIB
    """Nothing new is trained or saved with less free than this."""
    warn_below: Annotated[int, size("live", ge=0)] = 50 * GIB
    every: Annotated[float, duration("live", gt=0)] = 10
    """How often free space is measured."""


class ModelSection(Section, frozen=True):
    """[model]: what is trained."""

    source: Annotated[str, mark("home")] = "tiny"
    """``"tiny"``: a small model made on the spot, offline; a folder; or a hub id."""
    device: Annotated[str, mark("restart")] = "auto"
    """``"auto"``: the first accelerator that torch sees, else the CPU."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], mark("home")] = "auto"
    """Of the published weights and of a frozen base. Trained weights are always kept in float32."""
    trust_remote_code: Annotated[bool, mark("restart")] = False
    """Run Python code that comes with a model. Leave it off unless you have read that code."""


class DataSection(Section, frozen=True):
    """[data]: how rows are read."""

    on_bad_line: Annotated[Literal["refuse", "skip"], mark("live")] = "refuse"
    """``refuse``: one bad line sends the file to ``queue/failed/``; ``skip``: the good ones are trained."""
    shuffle: Annotated[bool, mark("next_job")] = True


class TrainingSection(Section, frozen=True):
    """[training]: how the model is trained."""

    method: Annotated[Literal["full", "lora"], mark("home")] = "full"
    epochs: Annotated[int, mark("next_job", ge=1, le=1000)] = 1
    learning_rate: Annotated[float, mark("next_job", gt=0, lt=1)] = 2e-4
    warmup_steps: Annotated[int, mark("next_job", ge=0)] = 50
    """Steps of linear warm-up from the lineage's first step on; the rate is constant after it, across files."""
    weight_decay: Annotated[float, mark("next_job", ge=0, lt=1)] = 0.01
    beta1: Annotated[float, mark("next_job", ge=0, lt=1)] = 0.9
    beta2: Annotated[float, mark("next_job", ge=0, lt=1)] = 0.95
    max_grad_norm: Annotated[float, mark("next_job", gt=0)] = 1.0
    batch_tokens: Annotated[int, mark("next_job", ge=1)] = 2048
    """Tokens per optimizer step."""
    micro_batch_tokens: Annotated[int, mark("next_job", ge=1)] = 2048
    """Tokens, padding included, in one forward pass; more per step means gradient accumulation."""
    max_length: Annotated[int, mark("next_job", ge=8, le=1 << 20)] = 1024
    """Tokens in one row; what is longer is cut from the left of the prompt or, with no prompt, from the end."""
    packing: Annotated[bool, mark("next_job")] = False
    dropout: Annotated[float, mark("next_job", ge=0, lt=1)] = 0.0
    """Dropout of the LoRA adapter."""
    lora_rank: Annotated[int, mark("home", ge=1, le=1024)] = 16
    lora_alpha: Annotated[float, mark("home", gt=0)] = 32.0
    lora_targets: Annotated[str, mark("home")] = "all-linear"
    """``"all-linear"``, or module names with commas between."""
    deterministic: Annotated[bool, mark("restart")] = True
    seed: Annotated[int, mark("next_job", ge=0)] = 0
    threads: Annotated[int, mark("restart", ge=0, le=1024)] = 0
    """CPU threads of the training process; 0: as many as the machine has cores."""
    processes: Annotated[Literal[1], mark("restart")] = 1
    """Training processes (ranks). This version runs one."""


class CheckpointSection(Section, frozen=True):
    """[checkpoint]: resumable training state."""

    every_steps: Annotated[int, mark("live", ge=0)] = 0
    """Save after so many optimizer steps; 0: by time and cost alone."""
    every: Annotated[float, duration("live", ge=0)] = 600
    """Save after so long: the most work that a crash can cost."""
    keep: Annotated[int, mark("live", ge=2, le=1000)] = 3
    """Checkpoints kept. One alone could be the torn one, so two is the least."""


class PublishSection(Section, frozen=True):
    """[publish]: loadable versions of the model."""

    every: Annotated[float, duration("live", ge=0)] = 3600
    keep: Annotated[int, mark("live", ge=1, le=10000)] = 5
    """Versions kept beside the base and the current one."""


class EvaluationSection(Section, frozen=True):
    """[evaluation]: rows kept back from training to measure with."""

    held_out: Annotated[float, mark("next_job", ge=0, lt=0.5)] = 0.0
    """Share of each file's rows, chosen by content hash, so that a row never moves between the two sides."""


class ConsolidationSection(Section, frozen=True):
    """[consolidation]: the night's work."""

    enabled: Annotated[bool, mark("live")] = True
    after: Annotated[str, clock("live")] = "03:00"
    """Local time of day from which on it may run, once a day."""
    force_after: Annotated[float, duration("live", ge=0)] = 0
    """Run between two files when the queue has not been empty for so long; 0: only when truly idle."""


class HttpSection(Section, frozen=True):
    """[http]: metrics and health."""

    host: Annotated[str, mark("restart")] = "127.0.0.1"
    port: Annotated[int, mark("restart", ge=-1, le=65535)] = 9464
    """0: any free port, shown by ``status``; -1: off."""


class ControlSection(Section, frozen=True):
    """[control]: the Unix socket."""

    max_frame: Annotated[int, size("restart", ge=4096)] = 1 << 20
    max_connections: Annotated[int, mark("restart", ge=1)] = 1024


class ChildSection(Section, frozen=True):
    """[supervision.<child>]: restart policy of one supervisor or actor; :data:`CHILDREN` says who has what."""

    intensity: Annotated[int, mark("restart", ge=0)] | None = None
    """More restarts than so many within ``period`` are giving up."""
    period: Annotated[float, duration("restart", gt=0)] | None = None
    shutdown: Annotated[float, duration("restart", ge=0)] | None = None
    """How long it may take to stop before it is killed."""
    liveness: Annotated[float, duration("restart", gt=0)] | None = None
    """Without a sign of life for so long, it is ended and started again."""
    cool_down: Annotated[float, duration("restart", gt=0)] | None = None
    """How long to wait, after giving up, before it is tried again."""


_OF_SUPERVISORS = ("intensity", "period", "cool_down")
_OF_ACTORS = ("shutdown", "liveness", "cool_down")

CHILDREN: dict[str, tuple[str, ...]] = {
    # Whom the home's lock is refused must end: here nothing cools down.
    "root": ("intensity", "period"),
    "LockKeeper": ("shutdown",),
    "core": _OF_SUPERVISORS,
    "DiskMonitor": _OF_ACTORS,
    "QueueManager": _OF_ACTORS,
    "ControlSocket": _OF_ACTORS,
    "training": _OF_SUPERVISORS,
    "TrainerActor": _OF_ACTORS,
    "edge": _OF_SUPERVISORS,
    "InboxWatcher": _OF_ACTORS,
    "Consolidator": _OF_ACTORS,
    "MetricsExporter": _OF_ACTORS,
    "SignalHandler": _OF_ACTORS,
}
"""The supervisors and actors of the tree, in the order in which they start, and the keys of each."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings, with their defaults."""

    daemon: DaemonSection = DaemonSection()
    inbox: InboxSection = InboxSection()
    queue: QueueSection = QueueSection()
    disk: DiskSection = DiskSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    checkpoint: CheckpointSection = CheckpointSection()
    publish: PublishSection = PublishSection()
    evaluation: EvaluationSection = EvaluationSection()
    consolidation: ConsolidationSection = ConsolidationSection()
    http: HttpSection = HttpSection()
    control: ControlSection = ControlSection()
    supervision: dict[str, ChildSection] = {}
