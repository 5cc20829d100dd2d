"""What a training session asks of the world, and nothing more: it knows no actors, no mailboxes and no event loop.

Every method may be called from the training thread only, and blocks it. ``actor.py`` adapts this to the tree; a test
adapts it to a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from protocol.config import Config
from protocol.messages.common import BadLine, Phase
from protocol.messages.disk import Purpose, Reserved
from protocol.messages.queue import ClaimReply, Committed, JobStats, Published
from protocol.messages.trainer import ConsolidationResult, Progress

LetGoReason = Literal["pause", "skip", "cancel", "stop", "disk"]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the session at the next optimizer step, with a checkpoint."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """Give this job back at the next optimizer step, with a checkpoint."""

    id: str
    why: LetGoReason


@dataclass(frozen=True, slots=True)
class Consolidate:
    """Do the night's work now: the caller holds the maintenance lease."""

    lease: str


Wish = Stop | LetGo | Consolidate


class Port(Protocol):
    """The session's only way out."""

    def config(self) -> Config:
        """Return the newest snapshot of the settings."""

    def wanted(self, job: str | None = None) -> Wish | None:
        """Return the most urgent thing asked of one who holds ``job``, or None. Cheap: polled at each micro-batch.

        A stop comes first; a ``LetGo`` is told only to the holder of its job, a ``Consolidate`` only to one with none.
        """

    def wait(self, seconds: float) -> None:
        """Sleep, but return early when something new is asked."""

    def claim(self, wait_s: float) -> ClaimReply:
        """Ask for the next job; wait up to ``wait_s`` seconds for one, or until something is asked."""

    def phase(self, job: str, phase: Phase) -> None:
        """Tell that the job has entered a phase."""

    def progress(self, progress: Progress) -> None:
        """Tell how far training is. Dropped rather than waited for if nobody listens."""

    def trained(self, job: str, stats: JobStats) -> None:
        """Tell that all rows of the job are consumed; it awaits its checkpoint."""

    def committed(self, told: Committed) -> None:
        """Tell that HEAD names a checkpoint that holds these jobs. Telling it twice does no harm."""

    def published(self, told: Published) -> None:
        """Tell that a version was published."""

    def release(self, job: str, why: LetGoReason, stats: JobStats) -> None:
        """Give the job back because that was asked."""

    def refused(self, job: str, reason: str, lines: tuple[BadLine, ...]) -> None:
        """Give the job back because it can never be trained as it is."""

    def reserve(self, size: int, purpose: Purpose, wait_s: float) -> Reserved:
        """Ask for ``size`` bytes of disk before writing them."""

    def unreserve(self, token: str) -> None:
        """Give a reservation back."""

    def cost(self, checkpoint_bytes: int, version_bytes: int) -> None:
        """Tell what a checkpoint and a version of this model take, in bytes."""

    def write_failed(self, path: str, error: str) -> None:
        """Tell that the disk is full, whatever the file system says of its free space."""

    def warn(self, what: str) -> None:
        """Say in log and events what people should know, and nobody needs to answer."""

    def beat(self, phase: str, limit: float | None = None) -> None:
        """Show a sign of life; the next one comes within ``limit`` seconds (None: the actor's own limit)."""

    def consolidated(self, result: ConsolidationResult) -> None:
        """Answer a ``Consolidate``."""
