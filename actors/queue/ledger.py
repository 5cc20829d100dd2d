"""What HEAD's checkpoint says was trained: read without torch, and believed over SQLite in both directions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protocol.home import Home
from protocol.records import (
    CHECKPOINT_NAME,
    LEDGER,
    MANIFEST,
    CheckpointManifest,
    Head,
    Ledger,
    NewerFormat,
    Unreadable,
    VersionManifest,
    read_head,
    read_record,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """HEAD and the ledger that it stands for. ``ledger`` None: it cannot be known, and ``trouble`` says why."""

    checkpoint: str | None
    ledger: Ledger | None
    trouble: str = ""


def standing(home: Home) -> Standing:
    """Read what the weights that training would go on from hold.

    With no checkpoint at all that is nothing. HEAD missing beside checkpoints, or a torn one, is unknown: nothing
    may be concluded from it until the trainer has fallen back and replaced HEAD.
    """
    try:
        head = read_head(home)
    except (Unreadable, NewerFormat) as error:
        return Standing(None, None, str(error))
    if head is None:
        names = checkpoints(home)
        if names:
            return Standing(None, None, f"HEAD is missing, and there are checkpoints: {names[-1]} is the newest")
        return Standing(None, Ledger())
    return _of_head(home, head)


def head_checkpoint(home: Home) -> str | None:
    """Return the name of HEAD's checkpoint; None if there is none, or HEAD cannot be read."""
    try:
        head = read_head(home)
    except (Unreadable, NewerFormat):
        return None
    return None if head is None else head.checkpoint


def ledger_of(home: Home, checkpoint: str) -> Ledger:
    """Read the ledger of one checkpoint, held against the digest in its manifest.

    Raises:
        FileNotFoundError, NewerFormat, Unreadable: the checkpoint is gone, too new, or torn.
    """
    folder = home.checkpoints / checkpoint
    manifest = read_record(folder / MANIFEST, CheckpointManifest)
    digest = manifest.files.get(LEDGER)
    found = hashlib.sha256((folder / LEDGER).read_bytes()).hexdigest()
    if digest is None or digest.sha256 != found:
        raise Unreadable(f"{folder / LEDGER}: its manifest does not vouch for it")
    return read_record(folder / LEDGER, Ledger)


def checkpoints(home: Home) -> list[str]:
    """Return the names of all checkpoint folders, oldest first."""
    try:
        return sorted(path.name for path in home.checkpoints.iterdir() if CHECKPOINT_NAME.fullmatch(path.name))
    except FileNotFoundError:
        return []


def committed_everywhere(home: Home) -> set[str] | None:
    """Return the jobs that every checkpoint which could be resumed from holds; None if that cannot be said.

    A torn checkpoint cannot be resumed from and has no say; one that a newer stokehold wrote has, and is not
    understood.
    """
    known: set[str] | None = None
    for name in checkpoints(home):
        try:
            jobs = {entry.job for entry in ledger_of(home, name).committed}
        except (FileNotFoundError, Unreadable):
            continue
        except NewerFormat:
            return None
        known = jobs if known is None else known & jobs
    return known


def first_versions(home: Home, jobs: set[str]) -> dict[int, set[str]]:
    """Return, by number, which of these jobs each version is the first to hold."""
    found: dict[int, set[str]] = {}
    left = set(jobs)
    for folder in sorted(home.versions.iterdir()) if home.versions.is_dir() and left else ():
        try:
            manifest = read_record(folder / MANIFEST, VersionManifest)
        except (FileNotFoundError, NotADirectoryError, Unreadable, NewerFormat):
            continue
        held = {entry.job for entry in manifest.ledger.committed} & left
        if held:
            found[manifest.version] = held
            left -= held
    return found


def _of_head(home: Home, head: Head) -> Standing:
    if head.checkpoint is None:
        return Standing(None, Ledger())
    try:
        return Standing(head.checkpoint, ledger_of(home, head.checkpoint))
    except (FileNotFoundError, Unreadable, NewerFormat) as error:
        return Standing(head.checkpoint, None, f"checkpoint {head.checkpoint}: {error}")
