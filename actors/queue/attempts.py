"""What a failure costs a job. Pure functions: each takes where the job stands and says where it stands afterwards.

Progress is the job's cursor in its newest valid checkpoint, from zero for the first attempt, and is all that resets
a count. A failure that the trainer reports spends an attempt unless progress rose since the failure before it. A
training process that vanishes (signal, memory, hang) resumes in place; every third vanishing in a row without
progress is a failure that spends one. A daemon that vanishes spends none, but three vanishings in a row in one
boot, each after the job had left ``loading``, make it suspected poison. A stop, a pause, a full disk, a lost device
and a power cut are no failures and never come here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

MOST_FAILURES = 20
"""Failures that a job may have in all, whatever its progress."""
VANISHINGS = 3
"""Vanishings in a row, of the trainer or of the daemon, that mean something."""

Verdict = Literal["resume", "back", "park"]
"""``resume``: again, in place; ``back``: to the end of ``low``; ``park``: to ``failed/``."""


class Tally(msgspec.Struct, frozen=True):
    """What is remembered of a job's failures, across daemons."""

    attempts: int = 0
    """Attempts spent."""
    failures: int = 0
    """Failures that were reported, and third vanishings, whether they spent an attempt or not."""
    progress: int = 0
    """Samples consumed according to the newest valid checkpoint."""
    progress_at_failure: int = 0
    vanished: int = 0
    """Trainers that vanished with this job since it last made progress."""
    lost: int = 0
    """Daemons that vanished with this job, in this boot, since it last made progress."""
    live_boot: str | None = None
    """The boot in which the job has left ``loading`` and is running; None while it is not."""
    lost_boot: str | None = None
    """The boot in which ``lost`` was counted."""


def progressed(tally: Tally, cursor: int) -> Tally:
    """The newest valid checkpoint holds the job at this cursor. A fall-back may also lower it."""
    if cursor > tally.progress:
        return msgspec.structs.replace(tally, progress=cursor, vanished=0, lost=0)
    return msgspec.structs.replace(tally, progress=cursor)


def running(tally: Tally, boot: str) -> Tally:
    """The job has left ``loading``: from now on a vanishing daemon may be its fault."""
    return msgspec.structs.replace(tally, live_boot=boot)


def rested(tally: Tally) -> Tally:
    """The job was let go of in good order."""
    return msgspec.structs.replace(tally, live_boot=None)


def reported(tally: Tally, max_attempts: int) -> tuple[Tally, Verdict]:
    """The trainer reported a failure of this job, outside ``loading``."""
    rose = tally.progress > tally.progress_at_failure
    return _failed(rested(tally), spends=not rose, max_attempts=max_attempts)


def trainer_vanished(tally: Tally, max_attempts: int) -> tuple[Tally, Verdict]:
    """The training process vanished while it held this job, outside ``loading``."""
    counted = msgspec.structs.replace(rested(tally), vanished=tally.vanished + 1)
    if counted.vanished % VANISHINGS:
        return counted, "resume"
    return _failed(counted, spends=True, max_attempts=max_attempts)


def daemon_vanished(tally: Tally, boot: str) -> tuple[Tally, Verdict]:
    """The daemon that held this job was not there to let go of it; ``boot`` is the boot in which the next one starts.

    A job that had not left ``loading`` is not counted, and what happened in an earlier boot may have been a power cut.
    """
    if tally.live_boot is None:
        return tally, "resume"
    if tally.live_boot != boot:
        return msgspec.structs.replace(tally, live_boot=None, lost=0), "resume"
    before = tally.lost if tally.lost_boot == boot else 0
    counted = msgspec.structs.replace(tally, live_boot=None, lost=before + 1, lost_boot=boot)
    return counted, "park" if counted.lost >= VANISHINGS else "resume"


def forgiven(tally: Tally) -> Tally:
    """A person asked for the job to be tried again: all is forgiven, and the progress is kept."""
    return Tally(progress=tally.progress, progress_at_failure=tally.progress)


def _failed(tally: Tally, *, spends: bool, max_attempts: int) -> tuple[Tally, Verdict]:
    after = msgspec.structs.replace(
        tally,
        attempts=tally.attempts + spends,
        failures=tally.failures + 1,
        progress_at_failure=tally.progress,
    )
    if after.attempts >= max_attempts or after.failures >= MOST_FAILURES:
        return after, "park"
    return after, "back" if spends else "resume"
