"""Homes with checkpoints and versions in them, made by hand through the durable formats."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from protocol.home import Home
from protocol.messages.queue import JobStats
from protocol.records import (
    MANIFEST,
    BaseModel,
    CheckpointManifest,
    FileDigest,
    Head,
    Ledger,
    LedgerEntry,
    VersionKind,
    VersionManifest,
    encode_record,
)

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
BASE = BaseModel(source="tiny", weights_sha256="b" * 64, method="full")
STATS = JobStats(samples=7, rows=7, tokens=900, steps=12, first_loss=5.25, last_loss=2.5)


def ledger(*jobs: str) -> Ledger:
    return Ledger(
        committed=tuple(
            LedgerEntry(job=job, file=f"{job}.jsonl", sha256="0" * 64, epochs=1, rows=7, stats=STATS, step=12)
            for job in jobs
        )
    )


def checkpoint(home: Home, step: int, parent: str | None = None, lineage: str = "one") -> str:
    """Make a whole checkpoint and return its name."""
    name = f"step-{step:08d}-{step:08x}"
    folder = home.checkpoints / name
    folder.mkdir()
    manifest = CheckpointManifest(
        name=name, lineage=lineage, parent=parent, step=step, tokens=step * 100, base=BASE,
        files=contents(folder, {"ledger.json": encode_record(ledger("a")), "weights.safetensors": b"w" * step}),
        created_at=AT + timedelta(seconds=step), identity={"python": "3"},
    )  # fmt: skip
    (folder / MANIFEST).write_bytes(encode_record(manifest))
    return name


def version(home: Home, number: int, kind: VersionKind, *jobs: str, eval_loss: float | None = None) -> Path:
    """Make a whole version and return its folder."""
    folder = home.version(number)
    folder.mkdir()
    manifest = VersionManifest(
        version=number, kind=kind, step=number * 10, lineage="one", checkpoint=None, weights_sha256=f"{number}" * 64,
        base=BASE, ledger=ledger(*jobs), files=contents(folder, {"model.safetensors": b"m" * 100}),
        created_at=AT + timedelta(hours=number), identity={}, eval_loss=eval_loss,
    )  # fmt: skip
    (folder / MANIFEST).write_bytes(encode_record(manifest))
    return folder


def contents(folder: Path, files: dict[str, bytes]) -> dict[str, FileDigest]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: FileDigest(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()}


def head(home: Home, checkpoint: str | None, version: int | None, lineage: str = "one") -> None:
    """Write HEAD, and point ``current`` to the version."""
    home.head.write_bytes(encode_record(Head(lineage=lineage, checkpoint=checkpoint, version=version, updated_at=AT)))
    if version is not None:
        home.current.unlink(missing_ok=True)
        home.current.symlink_to(f"versions/{version:06d}")
