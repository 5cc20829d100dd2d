"""Makes training durable, always in this order: save, HEAD, tell Committed; publish, HEAD, ``current``, tell Published.

Nothing here touches the weights or the random states, so whether and when it is called cannot change the maths. A full
disk is waited for: what is in memory is not lost, and nothing half-written stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from actors.trainer.checkpoint import CheckpointStore, TensorCodec
from actors.trainer.engine import Learner
from actors.trainer.head import HeadFile, repair_current
from actors.trainer.lineage import Lineage, committed_jobs
from actors.trainer.port import Port
from actors.trainer.publish import publish_version
from actors.trainer.retention import retain_versions
from actors.trainer.room import Blocked, Room
from actors.trainer.staging import discard
from protocol.home import Home
from protocol.messages.disk import Purpose
from protocol.messages.queue import Committed, CommittedJob, Published
from protocol.records import CheckpointManifest, FileDigest, Head, VersionKind, VersionManifest
from supervisor.durable import Disk

SHARE_OF_TIME = 0.035
"""What saving may cost of the training time (CheckFreq, FAST'21) before ``checkpoint.every`` asks for it anyway."""
LEAST_INTERVAL = 5.0
"""Seconds between two checkpoints taken by cost, however cheap they are."""
JOBS_TOLD = 500
"""Jobs in one message, so that it fits a frame."""
HEAD_BYTES = 1 << 16
"""More than HEAD or a link takes."""


class Keeper:
    """Writes checkpoints and versions of one lineage and moves HEAD over them."""

    def __init__(self, home: Home, disk: Disk, port: Port, codec: TensorCodec, blocked: Blocked) -> None:
        self._home = home
        self._disk = disk
        self._port = port
        self._room = Room(port, blocked)
        self._heads = HeadFile(home, disk)
        self._saved_at = self._published_at = time.monotonic()
        self._steps_at_save = 0
        self._cost_s = 0.0
        self._checkpoint_bytes = self._version_bytes = 0
        self.store = CheckpointStore(home, disk, codec)

    def begin(self, lineage: Lineage, published_ago: float) -> None:
        """Begin to keep time, and give back the room of what never became HEAD.

        ``published_ago``: age of the published version, in seconds; negative if the clock was set back since.
        """
        self._saved_at, self._steps_at_save = time.monotonic(), lineage.step
        self._published_at = time.monotonic() - max(0.0, published_ago)
        self.store.retain(self._port.config().checkpoint.keep)

    def checkpoint_due(self, lineage: Lineage) -> bool:
        """Whether a checkpoint is due: by steps, by time, or because it costs little."""
        settings = self._port.config().checkpoint
        if settings.every_steps and lineage.step - self._steps_at_save >= settings.every_steps:
            return True
        cheap = max(LEAST_INTERVAL, self._cost_s / SHARE_OF_TIME)
        return time.monotonic() - self._saved_at >= min(settings.every, cheap)

    def publication_due(self, lineage: Lineage) -> bool:
        """Whether there is something to publish and the published version is older than ``publish.every``."""
        return lineage.behind > 0 and time.monotonic() - self._published_at >= self._port.config().publish.every

    def checkpoint(self, lineage: Lineage, learner: Learner, purpose: Purpose = "save") -> bool:
        """Save, move HEAD, commit the jobs that await it. False: the disk is full and a stop is asked."""
        manifest = self.save(lineage, learner, purpose)
        if manifest is None:
            return False
        if not self.move_head(lineage, manifest.name, lineage.version):
            discard(self._disk, self.store.shelf.path(manifest.name))
            return False
        self.accept_checkpoint(lineage, manifest)
        return True

    def publish(self, lineage: Lineage, learner: Learner, kind: VersionKind) -> bool:
        """Publish the state that the newest checkpoint holds. False: the disk is full and a stop is asked."""
        manifest = self.write_version(lineage, learner, kind)
        if manifest is None or not self.move_head(lineage, lineage.checkpoint, manifest.version):
            return False
        self.accept_version(lineage, manifest)
        return True

    def save(self, lineage: Lineage, learner: Learner, purpose: Purpose) -> CheckpointManifest | None:
        """Write a checkpoint; HEAD stays. None: the disk is full and a stop is asked."""
        tensors, state = learner.capture()
        state["committing"] = [entry.job for entry in lineage.awaiting]

        def write() -> CheckpointManifest:
            began = time.monotonic()
            manifest = self.store.save(
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
            )
            self._cost_s = time.monotonic() - began
            return manifest

        size = self._checkpoint_bytes or learner.checkpoint_bytes()
        manifest = self._room.write(size, purpose, self._home.checkpoints, write)
        if manifest is not None:
            # the optimizer has no moments before its first step, so that the first checkpoint says too little
            self._checkpoint_bytes = max(_bytes(manifest.files), learner.checkpoint_bytes())
            self.tell_cost(learner)
        return manifest

    def write_version(self, lineage: Lineage, learner: Learner, kind: VersionKind) -> VersionManifest | None:
        """Write a version; HEAD stays. None: the disk is full and a stop is asked."""

        def write() -> VersionManifest:
            return publish_version(
                self._home,
                self._disk,
                kind=kind,
                step=lineage.step,
                lineage=lineage.id,
                checkpoint=lineage.checkpoint,
                base=lineage.base,
                ledger=lineage.ledger(),
                identity=lineage.identity,
                save=learner.save_version,
            )

        size = self._version_bytes or learner.version_bytes()
        manifest = self._room.write(size, "publish", self._home.versions, write)
        if manifest is not None:
            self._version_bytes = _bytes(manifest.files)
            self.tell_cost(learner)
        return manifest

    def move_head(self, lineage: Lineage, checkpoint: str | None, version: int | None) -> bool:
        """Replace HEAD. False: the disk is full and a stop is asked."""
        head = Head(lineage.id, checkpoint, version, datetime.now(UTC))
        return self._bookkeep(self._home.head, lambda: self._heads.replace(head))

    def accept_checkpoint(self, lineage: Lineage, manifest: CheckpointManifest) -> None:
        """HEAD names this checkpoint: the jobs that awaited it are committed."""
        done, lineage.awaiting = lineage.awaiting, []
        lineage.committed += done
        lineage.unpublished += [entry.job for entry in done]
        lineage.checkpoint, lineage.checkpoint_step = manifest.name, manifest.step
        self._saved_at, self._steps_at_save = time.monotonic(), lineage.step
        self.tell_committed(lineage, committed_jobs(done))
        self.store.retain(self._port.config().checkpoint.keep)

    def accept_version(self, lineage: Lineage, manifest: VersionManifest) -> None:
        """HEAD names this version: let ``current`` name it too, and tell. The next start does what a stop cut short."""
        jobs, lineage.unpublished = lineage.unpublished, []
        lineage.version, lineage.published_step = manifest.version, manifest.step
        self._published_at = time.monotonic()
        self._bookkeep(self._home.current, lambda: repair_current(self._home, self._disk, self._heads.read()))
        self.tell_published(lineage, jobs)
        retain_versions(self._home, self._disk, self._port.config().publish.keep)

    def tell_committed(self, lineage: Lineage, jobs: list[CommittedJob]) -> None:
        """Tell which jobs the newest checkpoint committed, and how far the unfinished ones are in it."""
        if lineage.checkpoint is None:
            return
        cursors = {cursor.job: cursor.consumed for cursor in lineage.cursors.values()}
        for first in range(0, max(1, len(jobs)), JOBS_TOLD):
            some = tuple(jobs[first : first + JOBS_TOLD])
            self._port.committed(Committed(lineage.checkpoint, lineage.checkpoint_step, some, cursors))

    def tell_published(self, lineage: Lineage, jobs: list[str]) -> None:
        """Tell which jobs the published version is the first to hold."""
        if lineage.version is None:
            return
        for first in range(0, max(1, len(jobs)), JOBS_TOLD):
            some = tuple(jobs[first : first + JOBS_TOLD])
            self._port.published(Published(lineage.version, lineage.published_step, some))

    def tell_cost(self, learner: Learner) -> None:
        """Tell what a checkpoint and a version take: as measured, or before the first as estimated."""
        self._port.cost(
            self._checkpoint_bytes or learner.checkpoint_bytes(), self._version_bytes or learner.version_bytes()
        )

    def _bookkeep(self, path: Path, work: Callable[[], object]) -> bool:
        """Do a small thing, which may draw on the reserve. False: the disk is full and a stop is asked."""

        def write() -> bool:
            work()
            return True

        return self._room.write(HEAD_BYTES, "stop", path, write) or False


def _bytes(files: dict[str, FileDigest]) -> int:
    return sum(file.bytes for file in files.values())
