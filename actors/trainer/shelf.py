"""Reading ``HOME/checkpoints``: what stands there, and whether it is whole. Needs neither torch nor a running daemon.

A checkpoint is named ``step-NNNNNNNN-ID``. The ID is the beginning of the sha256 of its manifest (written with an empty
name), and the manifest holds the sha256 of every other file: the name vouches for all of it, down to a single bit.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from actors.trainer.staging import TORN, file_digest, misfit
from actors.trainer.tensorfile import BadTensorFile
from actors.trainer.torn import Torn
from protocol.home import Home
from protocol.records import (
    CHECKPOINT_NAME,
    LEDGER,
    MANIFEST,
    VERSION_NAME,
    CheckpointManifest,
    Head,
    Ledger,
    Unreadable,
    encode_record,
    read_record,
)

STATE = "state.json"
TENSORS = ".safetensors"


@dataclass(frozen=True, slots=True)
class CheckpointEntry:
    """One row of a listing, from the manifest and the sizes alone."""

    name: str
    step: int
    bytes: int
    manifest: CheckpointManifest | None
    problem: str | None
    """Why it is torn, as far as names and sizes show; None if it looks whole."""

    @property
    def age(self) -> tuple[int, float]:
        """Sorts from old to new: by step, never by the folder's time."""
        return self.step, self.manifest.created_at.timestamp() if self.manifest else 0.0


class Shelf:
    """The checkpoints of a home, read-only."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.checkpoints

    def path(self, name: str) -> Path:
        return self._folder / name

    def entries(self) -> list[CheckpointEntry]:
        """List the checkpoints, newest first, from manifests and sizes: cheap, and blind to a flipped tensor.

        Raises:
            NewerFormat: a newer stokehold wrote one of them.
        """
        if not self._folder.exists():
            return []
        names = [path.name for path in self._folder.iterdir() if CHECKPOINT_NAME.fullmatch(path.name)]
        return sorted(map(self._entry, names), key=lambda entry: entry.age, reverse=True)

    def set_aside(self) -> list[Path]:
        """Return the damaged ones that an earlier start renamed to ``.torn-NAME``."""
        return sorted(self._folder.glob(TORN + "*"))

    def manifest(self, name: str) -> CheckpointManifest:
        """Return a checkpoint's manifest, checked against its name, and the files' names and sizes against it.

        Raises:
            Torn: it is damaged, or not there.
            NewerFormat: a newer stokehold wrote it.
        """
        with damage_as_torn(name):
            manifest = read_record(self.path(name) / MANIFEST, CheckpointManifest)
            problem = misfit(self.path(name), manifest.files)
        if manifest.name != name or name_for(manifest) != name:
            raise Torn(name, f"{MANIFEST} is damaged, or that of another checkpoint")
        if problem is not None:
            raise Torn(name, problem)
        return manifest

    def verify(self, name: str) -> CheckpointManifest:
        """Read every byte of a checkpoint and return its manifest.

        Raises:
            Torn: it is damaged, or not there.
            NewerFormat: a newer stokehold wrote it.
        """
        manifest = self.manifest(name)
        with damage_as_torn(name):
            for file, expected in manifest.files.items():
                if file_digest(self.path(name) / file) != expected:
                    raise Torn(name, f"{file} does not have the sha256 that {MANIFEST} vouches for")
        return manifest

    def ledger(self, name: str) -> Ledger:
        """Return a checkpoint's ledger, unverified. Raises what :func:`protocol.records.read_record` raises."""
        return read_record(self.path(name) / LEDGER, Ledger)

    def line_of(self, head: Head) -> Iterator[str]:
        """Names to resume from, in the order to try: HEAD's own, its ancestors, then older ones of its lineage.

        One that is newer than HEAD's was never HEAD: the process died between its rename and HEAD's.
        """
        if head.checkpoint is None:
            return
        entries = {entry.name: entry for entry in self.entries()}
        tried: set[str] = set()
        name: str | None = head.checkpoint
        while name is not None and name not in tried:
            tried.add(name)
            yield name
            manifest = entries[name].manifest if name in entries else None
            name = manifest.parent if manifest else None
        for entry in entries.values():
            ours = entry.manifest is None or entry.manifest.lineage == head.lineage
            if ours and entry.step <= step_of(head.checkpoint) and entry.name not in tried:
                yield entry.name

    def adoptable(self) -> Head | None:
        """Return a HEAD that names the newest whole checkpoint, for a person to write when HEAD is lost."""
        versions = [int(path.name) for path in self._home.versions.glob("*") if VERSION_NAME.fullmatch(path.name)]
        for entry in self.entries():
            try:
                manifest = self.verify(entry.name)
            except Torn:
                continue
            return Head(manifest.lineage, manifest.name, max(versions, default=None), datetime.now(UTC))
        return None

    def _entry(self, name: str) -> CheckpointEntry:
        try:
            manifest = self.manifest(name)
        except Torn as torn:
            return CheckpointEntry(name, step_of(name), 0, None, torn.why)
        size = sum(file.bytes for file in manifest.files.values()) + len(encode_record(manifest))
        return CheckpointEntry(name, manifest.step, size, manifest, None)


def step_of(name: str) -> int:
    """Return the step in a checkpoint's name: known even when its manifest is lost."""
    return int(name.split("-")[1])


def name_for(manifest: CheckpointManifest) -> str:
    """Return the name of a checkpoint: its step, and the beginning of the sha256 of its manifest without the name."""
    nameless = encode_record(msgspec.structs.replace(manifest, name=""))
    return f"step-{manifest.step:08d}-{hashlib.sha256(nameless).hexdigest()[:8]}"


@contextmanager
def damage_as_torn(name: str) -> Iterator[None]:
    """Turn what damaged files raise into :class:`Torn`. Trouble of ours (permissions, descriptors) goes up as it is."""
    try:
        yield
    except (Unreadable, BadTensorFile, ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Torn(name, str(error)) from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise Torn(name, f"the disk cannot read it: {error}") from error
        raise
