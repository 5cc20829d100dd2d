"""The durable formats of a home: HEAD, a checkpoint's manifest and ledger, a version's manifest.

Each has a ``format`` number. An older program refuses a newer number (:class:`NewerFormat`); a newer one migrates
forward. Writers live with the training process; anyone may read, with no daemon running and without torch.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from protocol.home import Home
from protocol.messages.common import Record
from protocol.messages.queue import JobStats

FORMAT = 1
MANIFEST = "manifest.json"
LEDGER = "ledger.json"

CHECKPOINT_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{8})")
VERSION_NAME = re.compile(r"\d{6}")

VersionKind = Literal["base", "trained", "consolidated", "snapshot"]


class NewerFormat(Exception):
    """The file was written by a newer stokehold. What to do: run that version, or a newer one."""


class Unreadable(Exception):
    """The file is not what its name says: torn, or not ours."""


class Head(Record, frozen=True):
    """``HOME/HEAD``: the only thing resumed from. Replaced by one rename."""

    lineage: str
    """Id of the line of checkpoints; a new one begins only when training starts again from the base."""
    checkpoint: str | None
    """Name of the checkpoint folder, or None before the first one."""
    version: int | None
    """The published version, or None before the base is."""
    updated_at: datetime
    format: int = FORMAT


class Cursor(Record, frozen=True):
    """How far one unfinished job has been trained. Row order is a pure function of (seed, epoch, row count)."""

    job: str
    file: str
    sha256: str
    epoch: int
    position: int
    """Training rows of this epoch consumed: the first ``position`` of its order."""
    epochs: int
    rows: int
    """Training rows in one epoch."""
    seed: int
    stats: JobStats
    settings: dict[str, dict[str, Any]]
    """The [data], [training] and [evaluation] tables of the job's first step: it keeps them to its end."""

    @property
    def consumed(self) -> int:
        """Samples consumed so far, over all epochs."""
        return self.epoch * self.rows + self.position


class LedgerEntry(Record, frozen=True):
    """One committed job."""

    job: str
    file: str
    sha256: str
    epochs: int
    rows: int
    stats: JobStats
    step: int
    """Optimizer steps of the lineage at its end."""


class Ledger(Record, frozen=True):
    """What the weights of one checkpoint hold: the jobs committed, and a cursor for every job begun and unfinished."""

    committed: tuple[LedgerEntry, ...] = ()
    cursors: tuple[Cursor, ...] = ()
    disturbances: tuple[str, ...] = ()
    """Where job order, micro-batches or device changed on the way, so that bits may differ although counts hold."""
    format: int = FORMAT

    def cursor(self, job: str) -> Cursor | None:
        return next((cursor for cursor in self.cursors if cursor.job == job), None)


class FileDigest(Record, frozen=True):
    """One file of a folder that a manifest vouches for."""

    bytes: int
    sha256: str


class BaseModel(Record, frozen=True):
    """What the lineage began from."""

    source: str
    weights_sha256: str
    method: Literal["full", "lora"]


class CheckpointManifest(Record, frozen=True):
    """``checkpoints/NAME/manifest.json``, written last: a checkpoint without a valid one does not exist."""

    name: str
    lineage: str
    parent: str | None
    step: int
    tokens: int
    base: BaseModel
    files: dict[str, FileDigest]
    created_at: datetime
    identity: dict[str, str]
    """Code, library and device versions; seeds; threads: what bit-exactness depends on."""
    published_step: int = 0
    """Step of the newest version when this was taken: what is newer is owed a publication."""
    format: int = FORMAT


class VersionManifest(Record, frozen=True):
    """``models/versions/NNNNNN/manifest.json``, written last."""

    version: int
    kind: VersionKind
    step: int
    lineage: str
    checkpoint: str | None
    weights_sha256: str
    """Over the tensors' names, shapes, dtypes and bytes, in name order."""
    base: BaseModel
    ledger: Ledger
    files: dict[str, FileDigest]
    created_at: datetime
    identity: dict[str, str]
    eval_loss: float | None = None
    rolled_back: tuple[str, ...] = ()
    format: int = FORMAT


T = TypeVar("T", Head, Ledger, CheckpointManifest, VersionManifest)


def read_record(path: Path, kind: type[T]) -> T:
    """Read one durable record.

    Raises:
        FileNotFoundError: there is none.
        NewerFormat: a newer stokehold wrote it.
        Unreadable: it does not parse, or lacks something.
    """
    data = path.read_bytes()
    try:
        number = msgspec.json.decode(data, type=_Format).format
    except msgspec.DecodeError as error:
        raise Unreadable(f"{path}: {error}") from error
    if number > FORMAT:
        raise NewerFormat(f"{path} has format {number}; this version reads up to {FORMAT}: run the newer stokehold")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise Unreadable(f"{path}: {error}") from error


def encode_record(record: Head | Ledger | CheckpointManifest | VersionManifest) -> bytes:
    """Return the bytes of a record as they stand on disk: JSON, one line break at the end."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def read_head(home: Home) -> Head | None:
    """Return HEAD, or None in a home where nothing was ever trained or loaded."""
    try:
        return read_record(home.head, Head)
    except FileNotFoundError:
        return None


class _Format(msgspec.Struct):
    format: int
