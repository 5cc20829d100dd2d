"""What QueueManager is told about a settled file: take it, or file it away as refused, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.inbox.validation import Changed, Checked, Stamp, Unfit, check_file, why_refused
from protocol.config import Config
from protocol.inbox_names import Named
from protocol.messages.queue import Accept, Refuse

SUFFIX: Final = ".jsonl"

BETWEEN_LOOKS: Final = 0.05
"""Seconds of reading between two questions whether to go on: a few lines may be a gigabyte."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file of the inbox that is nobody's temporary one."""

    path: Path
    """Relative to the inbox."""
    stamp: Stamp
    named: Named


@dataclass(frozen=True, slots=True)
class Unread:
    """The file could not be judged now: it changed or vanished (``reason`` None), or reading it failed."""

    reason: str | None = None


Verdict = Accept | Refuse | Unread


def judge(
    inbox: Path, candidates: Sequence[Candidate], config: Config, go_on: Callable[[], object]
) -> list[tuple[Candidate, Verdict]]:
    """Read the files and say what is to become of each.

    Args:
        go_on: called now and then while reading; what it raises ends the reading.
    """
    return [(candidate, _judge(inbox, candidate, config, go_on)) for candidate in candidates]


def _judge(inbox: Path, candidate: Candidate, config: Config, go_on: Callable[[], object]) -> Verdict:
    if not candidate.named.file.lower().endswith(SUFFIX):
        return _refuse(inbox, candidate, f"its name does not end in {SUFFIX}: only JSON Lines are trained on")
    look_at = 0.0

    def now_and_then() -> None:
        nonlocal look_at
        if (now := time.monotonic()) >= look_at:
            look_at = now + BETWEEN_LOOKS
            go_on()

    go_on()
    try:
        checked = check_file(
            inbox / candidate.path,
            max_line=config.inbox.max_line,
            max_file=config.inbox.max_file,
            expect=candidate.stamp,
            go_on=now_and_then,
        )
    except Unfit as error:
        return _refuse(inbox, candidate, str(error))
    except (Changed, FileNotFoundError):
        return Unread()
    except OSError as error:
        return Unread(f"{candidate.named.file} cannot be read: {error.strerror}")
    reason = why_refused(checked, config.data.on_bad_line)
    return _accept(inbox, candidate, checked) if reason is None else _refuse(inbox, candidate, reason, checked)


def _accept(inbox: Path, candidate: Candidate, checked: Checked) -> Accept:
    return Accept(
        path=str(inbox / candidate.path),
        file=candidate.named.file,
        priority=candidate.named.priority,
        sha256=checked.sha256,
        bytes=checked.bytes,
        samples=checked.rows,
        refused=checked.bad_lines,
        submit_id=candidate.named.submit_id,
    )


def _refuse(inbox: Path, candidate: Candidate, reason: str, checked: Checked | None = None) -> Refuse:
    return Refuse(
        path=str(inbox / candidate.path),
        file=candidate.named.file,
        priority=candidate.named.priority,
        sha256=checked.sha256 if checked else "",
        bytes=candidate.stamp.size,
        reason=reason,
        lines=checked.bad_lines if checked else (),
        submit_id=candidate.named.submit_id,
    )
