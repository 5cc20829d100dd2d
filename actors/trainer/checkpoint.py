"""Resumable training state on disk: immutable folders, each whole or absent, vouched for by a manifest written last.

``checkpoints/step-NNNNNNNN-ID/`` holds one safetensors file per stem (weights, optimizer, ...), ``state.json``
(counters and random states), ``ledger.json`` (what the weights hold) and ``manifest.json``. No pickle anywhere.
No tensor library either: each engine brings a codec of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from actors.trainer.retention import retain_checkpoints
from actors.trainer.shelf import STATE, TENSORS, CheckpointEntry, Shelf, damage_as_torn, name_for
from actors.trainer.staging import TORN, staged, sweep, write_verified
from actors.trainer.tensorfile import RawTensor, contents, pieces
from actors.trainer.torn import Torn, head_missing, none_left
from protocol.home import Home
from protocol.records import (
    LEDGER,
    MANIFEST,
    BaseModel,
    CheckpointManifest,
    FileDigest,
    Head,
    Ledger,
    encode_record,
)
from supervisor.durable import Disk


class TensorCodec(Protocol):
    """What a store must know of a tensor library."""

    def raw(self, tensor: Any, /) -> RawTensor:
        """Return the tensor's dtype, shape and contiguous bytes."""

    def empty(self, dtype: str, shape: tuple[int, ...], /) -> tuple[Any, memoryview]:
        """Return a freshly allocated tensor and its bytes, to be filled in."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint, verified and in memory."""

    manifest: CheckpointManifest
    ledger: Ledger
    state: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    """By file stem, then by name."""
    passed_over: tuple[Torn, ...] = ()
    """Newer ones that were damaged and set aside. If there are any, HEAD must be replaced to name this one."""


class CheckpointStore:
    """The writer of ``HOME/checkpoints``: the training process. Synchronous; call it from a thread."""

    def __init__(self, home: Home, disk: Disk, codec: TensorCodec) -> None:
        self._home = home
        self._disk = disk
        self._codec = codec
        self.shelf = Shelf(home)

    def save(
        self,
        *,
        step: int,
        tokens: int,
        lineage: str,
        parent: str | None,
        base: BaseModel,
        tensors: Mapping[str, Mapping[str, Any]],
        state: Mapping[str, Any],
        ledger: Ledger,
        identity: Mapping[str, str],
        published_step: int = 0,
    ) -> CheckpointManifest:
        """Write a new checkpoint and return its manifest. Durable when it returns; HEAD is not moved.

        Args:
            step: optimizer steps of the lineage.
            tokens: tokens of the lineage that bore loss.
            parent: name of the checkpoint that training went on from, or None.
            tensors: by file stem, then by name. They must not change while this runs.
            state: anything that JSON holds exactly; not-a-number is refused.
            identity: code, library and device versions: what bit-exactness depends on.
            published_step: step of the newest version.

        Raises:
            OSError: the disk is full or broken. Nothing is left behind and nothing older was touched; try again from
                memory, never by another fsync.
        """
        with staged(self._disk, self._home.checkpoints) as stage:
            files = {}
            for stem, group in tensors.items():
                files[stem + TENSORS] = self._write_tensors(stage.folder / (stem + TENSORS), group)
            for file, text in ((STATE, _json(state)), (LEDGER, encode_record(ledger))):
                files[file] = write_verified(self._disk, stage.folder / file, [memoryview(text)])
            manifest = CheckpointManifest(
                name="",
                lineage=lineage,
                parent=parent,
                step=step,
                tokens=tokens,
                base=base,
                files=files,
                created_at=datetime.now(UTC),
                identity=dict(identity),
                published_step=published_step,
            )
            stage.name = name_for(manifest)
            manifest = msgspec.structs.replace(manifest, name=stage.name)
            self._disk.write(stage.folder / MANIFEST, encode_record(manifest))
        return manifest

    def load(self, name: str) -> Loaded:
        """Verify every byte of a checkpoint, then read it into memory freshly allocated (never mapped).

        Raises:
            Torn: it is damaged, or not there.
            NewerFormat: a newer stokehold wrote it.
        """
        manifest = self.shelf.verify(name)
        folder = self.shelf.path(name)
        stems = [file.removesuffix(TENSORS) for file in manifest.files if file.endswith(TENSORS)]
        with damage_as_torn(name):
            ledger = self.shelf.ledger(name)
            state = json.loads((folder / STATE).read_bytes())
            tensors = {stem: _read_tensors(folder / (stem + TENSORS), self._codec) for stem in stems}
        return Loaded(manifest, ledger, state, tensors)

    def newest_valid(self, head: Head | None) -> Loaded | None:
        """Return what training goes on from: HEAD's checkpoint, or the newest whole one before it on its lineage.

        Damaged ones met on the way are renamed to ``.torn-NAME`` and told in ``passed_over``. None: no checkpoint was
        ever HEAD, so training begins from the base.

        Raises:
            AllTorn: there are checkpoints and none can be resumed from, or HEAD is missing.
            NewerFormat: a newer stokehold wrote one.
        """
        if head is None:
            if self.shelf.entries() or self.shelf.set_aside():
                raise head_missing(self._home, "HEAD is missing", self.shelf.adoptable())
            return None
        if head.checkpoint is None:
            return None
        torn: list[Torn] = []
        for name in self.shelf.line_of(head):
            try:
                found = self.load(name)
            except Torn as error:
                torn.append(error)
                self._set_aside(name)
            else:
                return replace(found, passed_over=tuple(torn))
        raise none_left(self._home, torn)

    def entries(self) -> list[CheckpointEntry]:
        """List the checkpoints, newest first, from manifests and sizes."""
        return self.shelf.entries()

    def clean(self) -> list[str]:
        """Remove ``.tmp-*`` and ``.trash-*``, which only a killed process leaves; return their names."""
        return sweep(self._disk, self._home.checkpoints)

    def retain(self, keep: int) -> list[str]:
        """Keep HEAD's checkpoint and the newest ``keep`` of its line; return what was removed."""
        return retain_checkpoints(self._home, self._disk, keep)

    def _write_tensors(self, path: Path, group: Mapping[str, Any]) -> FileDigest:
        """Write one file. What was copied from an accelerator for it is let go of before the next is."""
        return write_verified(self._disk, path, pieces({name: self._codec.raw(one) for name, one in group.items()}))

    def _set_aside(self, name: str) -> None:
        folder = self.shelf.path(name)
        if not folder.exists():
            return
        target, number = folder.with_name(TORN + name), 1
        while target.exists():
            number += 1
            target = folder.with_name(f"{TORN}{name}~{number}")
        self._disk.rename(folder, target)


def _json(state: Mapping[str, Any]) -> bytes:
    return json.dumps(state, allow_nan=False, sort_keys=True, indent=1).encode() + b"\n"


def _read_tensors(path: Path, codec: TensorCodec) -> dict[str, Any]:
    tensors = {}
    with path.open("rb") as file:
        for name, slot in contents(file).items():
            tensors[name], buffer = codec.empty(slot.dtype, slot.shape)
            file.seek(slot.begin)
            if buffer.nbytes and file.readinto(buffer) != buffer.nbytes:
                raise Torn(path.parent.name, f"{path.name} ended inside tensor {name!r}")
    return tensors
