"""Versions: full model folders that anyone can load, numbered, immutable, each with a manifest written last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from actors.trainer.staging import file_digest, files_below, misfit, staged, sweep
from actors.trainer.tensorfile import weights_sha256
from protocol.home import Home
from protocol.records import (
    MANIFEST,
    VERSION_NAME,
    BaseModel,
    Ledger,
    Unreadable,
    VersionKind,
    VersionManifest,
    encode_record,
    read_head,
    read_record,
)
from supervisor.durable import Disk


def publish_version(
    home: Home,
    disk: Disk,
    *,
    kind: VersionKind,
    step: int,
    lineage: str,
    checkpoint: str | None,
    base: BaseModel,
    ledger: Ledger,
    identity: Mapping[str, str],
    save: Callable[[Path], None],
) -> VersionManifest:
    """Make the next version and return its manifest. Durable when it returns; neither HEAD nor ``current`` is moved.

    Args:
        step: optimizer steps that the weights hold.
        checkpoint: the checkpoint that holds the same weights, or None for the base.
        base: what the lineage began from. For kind ``base`` its ``weights_sha256`` is replaced by the version's own.
        save: writes a model folder (``save_pretrained``) into the path it is given. It need not fsync.

    Raises:
        OSError: the disk is full or broken. Nothing is left behind.
        BadTensorFile: ``save`` wrote no sound safetensors files.
    """
    head = read_head(home)
    taken = [*_numbers(home), head.version or 0 if head else 0]
    number = max(taken) + 1
    with staged(disk, home.versions, home.version(number).name) as stage:
        save(stage.folder)
        paths = files_below(stage.folder)
        for path in paths.values():
            disk.sync_file(path)
        weights = weights_sha256(stage.folder)
        manifest = VersionManifest(
            version=number,
            kind=kind,
            step=step,
            lineage=lineage,
            checkpoint=checkpoint,
            weights_sha256=weights,
            base=msgspec.structs.replace(base, weights_sha256=weights) if kind == "base" else base,
            ledger=ledger,
            files={name: file_digest(path) for name, path in sorted(paths.items())},
            created_at=datetime.now(UTC),
            identity=dict(identity),
        )
        disk.write(stage.folder / MANIFEST, encode_record(manifest))
    return manifest


def versions(home: Home) -> list[VersionManifest]:
    """Return the manifests of all versions that look whole, newest first. Reads no weights."""
    return [
        read_record(home.version(number) / MANIFEST, VersionManifest)
        for number in sorted(_numbers(home), reverse=True)
        if version_problem(home, number) is None
    ]


def version_problem(home: Home, number: int) -> str | None:
    """Say why a version is not what its manifest vouches for, judged by names and sizes, or None if it looks whole.

    Raises:
        NewerFormat: a newer stokehold wrote it.
    """
    folder = home.version(number)
    try:
        manifest = read_record(folder / MANIFEST, VersionManifest)
        problem = misfit(folder, manifest.files)
    except (Unreadable, FileNotFoundError, NotADirectoryError) as error:
        return str(error)
    if manifest.version != number:
        return f"its manifest is that of version {manifest.version}"
    return problem


def verify_version(home: Home, number: int) -> str | None:
    """Like :func:`version_problem`, judged by every byte."""
    if problem := version_problem(home, number):
        return problem
    manifest = read_record(home.version(number) / MANIFEST, VersionManifest)
    for name, expected in manifest.files.items():
        if file_digest(home.version(number) / name) != expected:
            return f"{name} does not have the sha256 that {MANIFEST} vouches for"
    return None


def clean_versions(home: Home, disk: Disk) -> list[str]:
    """Remove what a killed process left half-made in ``models/versions``; return the names."""
    return sweep(disk, home.versions)


def _numbers(home: Home) -> list[int]:
    return [int(path.name) for path in home.versions.glob("*") if VERSION_NAME.fullmatch(path.name)]
