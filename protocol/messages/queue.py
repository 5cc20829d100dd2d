"""What can be said to QueueManager, and what it answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from protocol.messages.common import BadLine, Done, Message, Phase, Priority, Record, Request

JobState = Literal["queued", "processing", "failed"]
Outcome = Literal["trained", "failed", "cancelled", "rolled_back"]

JobText = Annotated[str, msgspec.Meta(max_length=1100)]
"""An id, a unique beginning of one, or a file name: 255 bytes, each of which may have to be written ``\\xNN``."""
SubmitId = Annotated[str, msgspec.Meta(max_length=64)]


# ---------------------------------------------------------------- records


class JobView(Record, frozen=True):
    """One job that is not over: a row of ``queue list --json``."""

    id: str
    file: str
    priority: Priority
    state: JobState
    attempts: int
    last_error: str | None
    bytes: int
    sha256: str
    samples: int
    submitted_at: datetime


class QueueCounts(Record, frozen=True):
    """How many files stand where. ``processing`` counts those trained and awaiting their checkpoint too."""

    inbox: int = 0
    high: int = 0
    normal: int = 0
    low: int = 0
    processing: int = 0
    failed: int = 0
    done: int = 0

    @property
    def waiting(self) -> int:
        return self.high + self.normal + self.low


class HistoryEntry(Record, frozen=True):
    """How one job ended: a row of ``history --json``."""

    id: str
    file: str
    sha256: str
    outcome: Outcome
    samples: int
    """Lines that were trained, each counted once whatever the epochs."""
    held_out: int
    refused: int
    tokens: int
    steps: int
    first_loss: float | None
    last_loss: float | None
    version: int | None
    started_at: datetime | None
    finished_at: datetime
    interruptions: int


class GateView(Record, frozen=True):
    """The gate: what keeps jobs from being handed out. The first four are durable, the others are derived."""

    paused: bool = False
    release_device: bool = False
    stop_after_file: bool = False
    lease: str | None = None
    """Name of the holder of the maintenance lease."""
    lease_wanted: str | None = None
    """Who gets the maintenance lease between two files: no job is begun until then."""
    disk: str | None = None
    """Why the disk keeps the gate shut, or None."""
    device: str | None = None
    """Why the device keeps the gate shut (``device held by PID n``), or None."""
    storage: str | None = None
    """Why the queue cannot write to its folders or its database, or None."""

    @property
    def open(self) -> bool:
        shut = (self.paused, self.stop_after_file, self.lease, self.lease_wanted)
        return not any((*shut, self.disk, self.device, self.storage))


class JobStats(Record, frozen=True):
    """What one job has done so far, over all its interruptions. Kept in the ledger with its cursor."""

    samples: int = 0
    """Training rows consumed, counted at each pass: epochs times rows in the end."""
    rows: int = 0
    """Training rows consumed at least once: what people are told as samples, since a sample is one line."""
    held_out: int = 0
    refused: int = 0
    tokens: int = 0
    """Tokens that bore loss."""
    steps: int = 0
    """Optimizer steps."""
    first_loss: float | None = None
    last_loss: float | None = None


class Claimed(Record, frozen=True):
    """A job handed to the trainer. Its payload lies in ``queue/processing/``."""

    id: str
    file: str
    path: str
    """Absolute path of the payload."""
    sha256: str
    priority: Priority
    attempt: int
    """1 for the first attempt."""
    refused_lines: tuple[int, ...] = ()
    """Line numbers that validation refused and ``data.on_bad_line = "skip"`` leaves out."""


class NoWork(Record, frozen=True, tag_field="kind", tag="no_work"):
    """Nothing to hand out now."""

    reason: Literal["empty", "stopping", "paused", "stop_after_file", "lease", "disk", "device", "waited"]
    release_device: bool = False
    """The user asked for the device back (``pause --release``)."""


class ClaimReply(Record, frozen=True):
    """Exactly one of the two is set."""

    job: Claimed | None = None
    none: NoWork | None = None


class CommittedJob(Record, frozen=True):
    """A job that the newest checkpoint's ledger calls committed."""

    id: str
    stats: JobStats


# ---------------------------------------------------------------- from InboxWatcher


class Accepted(Record, frozen=True):
    """The job that a file became. ``state`` is ``failed`` for a refused file."""

    id: str
    file: str
    state: JobState
    reason: str | None = None
    duplicate: bool = False
    """The submit id was known already: nothing was added."""


class Accept(Request[Accepted], frozen=True):
    """Take a settled and validated file out of the inbox: row, rename, row."""

    path: str
    """Absolute path in the inbox, surrogate-escaped."""
    file: str
    """The name that the user gave it."""
    priority: Priority
    sha256: str
    bytes: int
    samples: int
    """Rows that will be trained (refused ones left out)."""
    refused: tuple[BadLine, ...] = ()
    submit_id: str | None = None
    """The id that ``submit`` put into the name: the same id twice is one job."""


class Refuse(Request[Accepted], frozen=True):
    """Move a file that cannot be trained from the inbox to ``queue/failed/`` with its ``error.json``."""

    path: str
    file: str
    priority: Priority
    sha256: str
    bytes: int
    reason: str
    lines: tuple[BadLine, ...] = ()
    submit_id: str | None = None


class QuietReport(Message, frozen=True):
    """InboxWatcher's answer to ``inbox.QuietScan``: what a scan begun after the request saw."""

    request: int
    quiet: bool


# ---------------------------------------------------------------- from TrainerActor


class Claim(Request[ClaimReply], frozen=True):
    """Hand me the next job. Answered at once if ``wait_s`` is 0, else when there is one or the wait is over.

    A job that this trainer's predecessor held comes first. Every claim ends the wait of the one before it.
    """

    wait_s: float = 0.0


class JobPhase(Message, frozen=True):
    """The trainer has entered a phase of a job."""

    id: str
    phase: Phase


class Trained(Request[Done], frozen=True):
    """All rows of the job are consumed; it now awaits its checkpoint. The next claim may follow."""

    id: str
    stats: JobStats


class Committed(Request[Done], frozen=True):
    """HEAD names a checkpoint whose ledger holds these jobs: row, rename to ``done/``, history.

    ``cursors`` are the positions of the unfinished jobs in that checkpoint (samples consumed): progress, for
    the counting of attempts.
    """

    checkpoint: str
    step: int
    jobs: tuple[CommittedJob, ...]
    cursors: dict[str, int]


class Published(Message, frozen=True):
    """A version was published: it holds these jobs."""

    version: int
    step: int
    jobs: tuple[str, ...]


class Release(Request[Done], frozen=True):
    """The trainer lets go of the job it holds, after a checkpoint, because it was asked to (``trainer.Yield``)."""

    id: str
    why: Literal["pause", "skip", "cancel", "stop", "disk"]
    stats: JobStats


class JobRefused(Request[Done], frozen=True):
    """The job can never be trained as it is (bad data, payload changed): to ``failed/`` at once, no retry."""

    id: str
    reason: str
    lines: tuple[BadLine, ...] = ()


# ---------------------------------------------------------------- from people


class GetQueue(Request[list[JobView]], frozen=True):
    """All jobs that are not over, in the order in which they would be trained, then the failed ones."""


class GetJob(Request[JobView], frozen=True):
    job: JobText


class GetHistory(Request[list[HistoryEntry]], frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 1000
    outcome: Outcome | None = None


class WaitAccepted(Request[Accepted], frozen=True):
    """Answered when the file submitted under this id has been accepted or refused."""

    submit_id: SubmitId


class WaitFinished(Request[HistoryEntry], frozen=True):
    """Answered when the job is over: trained (committed), failed or cancelled."""

    job: JobText


class Retry(Request[JobView], frozen=True):
    """Queue a failed job again, with its attempts forgiven and its progress kept."""

    job: JobText


class Cancel(Request[Done], frozen=True):
    """Take a waiting or running job out of the line. What was trained stays trained, and stands in history."""

    job: JobText


class Move(Request[JobView], frozen=True):
    """Put a waiting job at the end of another line."""

    job: JobText
    priority: Priority


class Pause(Request[Done], frozen=True):
    """Stop training at the next optimizer step, with a checkpoint. Answered when that is durable."""

    release: bool = False


class Resume(Request[Done], frozen=True):
    """Open the gate again."""


class Skip(Request[Done], frozen=True):
    """Send the running file to ``queue/low/`` with its progress kept. Answered when it has moved."""


class StopAfterFile(Request[Done], frozen=True):
    """Hand out no further job; SignalHandler stops the daemon when the running one is committed."""


# ---------------------------------------------------------------- from SignalHandler


class Stopping(Request[Done], frozen=True):
    """A stop was asked for: no job is begun any more, and an end at once is no vanishing.

    Answered when that is durable. ``board.stopping`` is set before this is sent, and is never taken back.
    """


# ---------------------------------------------------------------- from Consolidator


class Lease(Record, frozen=True):
    token: str
    granted: bool
    reason: str = ""


class RequestLease(Request[Lease], frozen=True):
    """Ask for the maintenance lease. Granted if no job is open, no pause is set, and a scan of the inbox begun after
    this request finds it quiet; otherwise refused at once.

    With ``between_files`` the queue need not be empty, nor the inbox quiet: what was begun is finished, no further job
    is handed out, and the lease is granted then. The wish lasts for as long as its caller waits for the answer.
    """

    holder: str
    between_files: bool = False


class ReturnLease(Request[Done], frozen=True):
    token: str


# ---------------------------------------------------------------- from DiskMonitor


class DiskGate(Message, frozen=True):
    """DiskMonitor's word on whether new work may begin. ``reason`` None: it may."""

    reason: str | None
