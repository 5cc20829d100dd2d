"""What EchoTrainer keeps on disk: the same folders, records and order of durable steps as the real trainer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from actors.testing.echo_weights import EchoWeights
from actors.testing.floats import FloatCodec
from actors.trainer.checkpoint import CheckpointStore
from actors.trainer.head import HeadFile, repair_current
from actors.trainer.lineage import Lineage, committed_jobs
from actors.trainer.port import Port
from actors.trainer.publish import clean_versions, publish_version, versions
from actors.trainer.retention import retain_versions
from actors.trainer.room import Room
from actors.trainer.torn import AllTorn
from protocol.home import Home
from protocol.messages.disk import Purpose
from protocol.messages.queue import Committed, Published
from protocol.records import BaseModel, Head, LedgerEntry, VersionKind
from supervisor.durable import Disk

T = TypeVar("T")

BYTES = 1 << 16
"""More than a checkpoint or a version of Echo takes."""


class NoRoom(Exception):
    """A stop is asked and the disk is full: what was trained since the last checkpoint is trained again."""


class EchoKeeper:
    """Weights, lineage, and the files that hold them."""

    def __init__(self, home: Home, disk: Disk, port: Port, blocked: Callable[[str | None], None]) -> None:
        """``blocked`` is told why a write waits, and None when it goes on."""
        self._home = home
        self._disk = disk
        self._port = port
        self._store = CheckpointStore(home, disk, FloatCodec)
        self._heads = HeadFile(home, disk)
        self._room = Room(port, blocked)
        self._saved_at = self._published_at = time.monotonic()
        config = port.config()
        self.weights = EchoWeights(config.training.seed)
        self.lineage = Lineage(
            secrets.token_hex(8), BaseModel(config.model.source, "", config.training.method), identity={"echo": "1"}
        )

    def recover(self) -> None:
        """Go on from HEAD, or publish the base of a new home.

        Raises:
            AllTorn: there are checkpoints and none can be resumed from.
            NoRoom: a stop is asked and the disk is full.
        """
        self._store.clean()
        clean_versions(self._home, self._disk)
        head = self._heads.read()
        loaded = self._store.newest_valid(head)
        if head is None:
            self.publish("base")
            return
        if loaded is not None and loaded.passed_over:
            head = msgspec.structs.replace(head, checkpoint=loaded.manifest.name, updated_at=datetime.now(UTC))
            self._heads.replace(head)
        shown = repair_current(self._home, self._disk, head)
        published = next((one for one in versions(self._home) if one.version == shown), None)
        if loaded is not None:
            self.weights.restore(loaded.tensors, loaded.state)
            self.lineage = Lineage.resumed(loaded, published)
            self.tell_committed(loaded.ledger.committed)
        elif published is not None:
            self.lineage = Lineage.born(published)
        else:
            raise AllTorn(f"HEAD names version {head.version}, which is damaged or gone, and no checkpoint")

    def keep_up(self) -> None:
        """Save and publish if it is time."""
        settings, lineage = self._port.config(), self.lineage
        now, every_steps = time.monotonic(), settings.checkpoint.every_steps
        due = every_steps and lineage.step - lineage.checkpoint_step >= every_steps
        publish = lineage.behind and now - self._published_at >= settings.publish.every
        if due or publish or now - self._saved_at >= settings.checkpoint.every:
            self.save("save")
        if publish:
            self.publish("trained")

    def save(self, purpose: Purpose) -> None:
        """Save, move HEAD, tell Committed; then retention. Nothing new: nothing is done.

        Raises:
            NoRoom: a stop is asked and the disk is full.
        """
        lineage = self.lineage
        if not lineage.unsaved:
            return
        tensors, state = self.weights.capture()
        manifest = self._write(
            purpose,
            self._home.checkpoints,
            lambda: self._store.save(
                step=lineage.step,
                tokens=lineage.tokens,
                lineage=lineage.id,
                parent=lineage.checkpoint,
                base=lineage.base,
                tensors=tensors,
                state=state,
                ledger=lineage.ledger(),
                identity=lineage.identity,
                published_step=lineage.published_step,
            ),
        )
        self._move_head(purpose, manifest.name, lineage.version)
        lineage.checkpoint, lineage.checkpoint_step = manifest.name, manifest.step
        self._saved_at = time.monotonic()
        done, lineage.awaiting = lineage.awaiting, []
        lineage.committed += done
        lineage.unpublished += [entry.job for entry in done]
        self.tell_committed(done)
        self._store.retain(self._port.config().checkpoint.keep)
        self._port.cost(BYTES, BYTES)

    def publish(self, kind: VersionKind) -> None:
        """Write a version, move HEAD and ``current``, tell Published; then retention.

        Raises:
            NoRoom: a stop is asked and the disk is full.
        """
        lineage = self.lineage
        manifest = self._write(
            "publish",
            self._home.versions,
            lambda: publish_version(
                self._home,
                self._disk,
                kind=kind,
                step=lineage.step,
                lineage=lineage.id,
                checkpoint=lineage.checkpoint,
                base=lineage.base,
                ledger=lineage.ledger(),
                identity=lineage.identity,
                save=self.weights.save_version,
            ),
        )
        self._move_head("publish", lineage.checkpoint, manifest.version)
        repair_current(self._home, self._disk, self._heads.read())
        lineage.base, lineage.version, lineage.published_step = manifest.base, manifest.version, manifest.step
        self._published_at = time.monotonic()
        jobs, lineage.unpublished = tuple(lineage.unpublished), []
        self._port.published(Published(manifest.version, manifest.step, jobs))
        retain_versions(self._home, self._disk, self._port.config().publish.keep)

    def tell_committed(self, entries: Sequence[LedgerEntry]) -> None:
        """Tell that HEAD's checkpoint holds these jobs, and how far the unfinished ones are in it."""
        lineage = self.lineage
        if lineage.checkpoint is not None:
            cursors = {cursor.job: cursor.consumed for cursor in lineage.cursors.values()}
            jobs = tuple(committed_jobs(list(entries)))
            self._port.committed(Committed(lineage.checkpoint, lineage.checkpoint_step, jobs, cursors))

    def _move_head(self, purpose: Purpose, checkpoint: str | None, version: int | None) -> None:
        head = Head(self.lineage.id, checkpoint, version, datetime.now(UTC))

        def write() -> bool:
            self._heads.replace(head)
            return True

        self._write(purpose, self._home.head, write)

    def _write(self, purpose: Purpose, path: Path, write: Callable[[], T]) -> T:
        done = self._room.write(BYTES, purpose, path, write)
        if done is None:
            raise NoRoom
        return done
