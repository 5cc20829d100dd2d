"""A home with checkpoints whose tensors are a pure function of their step, so that any mixture shows."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from actors.testing.floats import FloatCodec
from actors.trainer.checkpoint import CheckpointStore, Loaded
from actors.trainer.head import HeadFile
from actors.trainer.publish import publish_version
from actors.trainer.tensorfile import pieces
from protocol.home import Home
from protocol.messages.queue import JobStats
from protocol.records import BaseModel, CheckpointManifest, Cursor, Head, Ledger, LedgerEntry, VersionManifest
from supervisor.durable import Disk

LINEAGE = "line-1"
BASE = BaseModel("tiny", "0" * 64, "full")
IDENTITY = {"code": "1"}


def make_home(root: Path) -> Home:
    home = Home(root)
    for folder in home.folders:
        folder.mkdir(parents=True, exist_ok=True)
    return home


def tensors_at(step: int, size: int = 1000) -> dict[str, dict[str, array[float]]]:
    return {
        "model": {"a": array("d", [step + 0.5 * index for index in range(size)]), "b": array("d", [float(step)])},
        "optimizer": {"a.exp_avg": array("d", [1.0 / (step + index + 1) for index in range(size)]), "none": array("d")},
    }


def ledger_at(step: int) -> Ledger:
    """Jobs of ten steps each: those before ``step`` committed, one begun."""
    stats = JobStats(samples=10, steps=10)
    done = tuple(
        LedgerEntry(f"job{n}", f"{n}.jsonl", "ab" * 32, 1, 10, stats, n * 10) for n in range(1, step // 10 + 1)
    )
    begun = Cursor(
        f"job{step // 10 + 1}", "next.jsonl", "cd" * 32, 0, step % 10, 1, 10, 7, JobStats(steps=step % 10), {}
    )
    return Ledger(done, (begun,))


class Scene:
    """One home, its store and HEAD, all through one disk."""

    def __init__(self, home: Home, disk: Disk) -> None:
        self.home = home
        self.disk = disk
        self.store = CheckpointStore(home, disk, FloatCodec())
        self.head = HeadFile(home, disk)

    def save(
        self, step: int, *, parent: str | None = None, lineage: str = LINEAGE, size: int = 1000
    ) -> CheckpointManifest:
        return self.store.save(
            step=step,
            tokens=step * 100,
            lineage=lineage,
            parent=parent,
            base=BASE,
            tensors=tensors_at(step, size),
            state={"step": step, "rng": [step, step + 1], "rate": 0.1 + step},
            ledger=ledger_at(step),
            identity=IDENTITY,
            published_step=max(0, step - 10),
        )

    def commit(self, step: int, *, parent: str | None = None, size: int = 1000) -> CheckpointManifest:
        """Save, and make it HEAD."""
        manifest = self.save(step, parent=parent, size=size)
        now = self.head.read()
        self.head.replace(Head(LINEAGE, manifest.name, now.version if now else None, datetime.now(UTC)))
        return manifest

    def publish(
        self, step: int, *, checkpoint: str | None = None, kind: str = "trained", base: BaseModel = BASE
    ) -> VersionManifest:
        return publish_version(
            self.home,
            self.disk,
            kind=kind,  # type: ignore[arg-type]
            step=step,
            lineage=LINEAGE,
            checkpoint=checkpoint,
            base=base,
            ledger=ledger_at(step),
            identity=IDENTITY,
            save=model_writer(step),
        )

    def newest(self) -> Loaded | None:
        return self.store.newest_valid(self.head.read())


def model_writer(step: int) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        codec = FloatCodec()
        data = pieces({name: codec.raw(values) for name, values in tensors_at(step)["model"].items()})
        (folder / "model.safetensors").write_bytes(b"".join(data))
        (folder / "config.json").write_text("{}")
        (folder / "extra").mkdir()
        (folder / "extra" / "template.jinja").write_text("hello")

    return save


def assert_is_step(loaded: Loaded | None, step: int) -> None:
    """The checkpoint is that of ``step`` in every part."""
    assert loaded is not None
    assert loaded.manifest.step == step
    assert loaded.tensors == tensors_at(step)
    assert loaded.state == {"step": step, "rng": [step, step + 1], "rate": 0.1 + step}
    assert loaded.ledger == ledger_at(step)
