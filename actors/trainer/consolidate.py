"""The night's work on the weights: all of it becomes HEAD at once, or nothing does.

Full fine-tuning publishes a snapshot. LoRA merges the adapter into the base, reads the result back from disk, and
compares it with base and adapter: exports that were quietly wrong are the commonest fault of merges
(LLaMA-Factory#9051). Then the merged weights are the base of a fresh adapter.
"""

from __future__ import annotations

import dataclasses

import msgspec

from actors.trainer.engine import Engine, Learner, Unlike
from actors.trainer.keeper import Keeper
from actors.trainer.lineage import Lineage
from actors.trainer.publish import versions
from actors.trainer.staging import discard
from protocol.config import Config
from protocol.home import Home
from protocol.messages.trainer import ConsolidationResult
from protocol.records import VersionManifest
from supervisor.durable import Disk

NO_ROOM = "the disk is full and a stop was asked"


@dataclasses.dataclass(frozen=True, slots=True)
class Consolidated:
    """What training goes on with: the old learner and lineage if it was refused."""

    result: ConsolidationResult
    learner: Learner
    lineage: Lineage


def consolidate(
    home: Home, disk: Disk, keeper: Keeper, engine: Engine, lineage: Lineage, learner: Learner, config: Config
) -> Consolidated:
    """Consolidate the state that the newest checkpoint holds."""
    if (last := _last(home, lineage)) is not None and last.step == lineage.step:
        reason = f"nothing was trained since version {last.version}"
        return Consolidated(ConsolidationResult("refused", reason), learner, lineage)
    if learner.method == "full":
        return _snapshot(keeper, lineage, learner)
    return _merge(home, disk, keeper, engine, lineage, learner, config)


def _last(home: Home, lineage: Lineage) -> VersionManifest | None:
    """Return what the last night made. What is newer than HEAD's version was never promoted."""
    nights = (one for one in versions(home) if one.kind in ("snapshot", "consolidated"))
    return next((one for one in nights if one.version <= (lineage.version or 0)), None)


def _snapshot(keeper: Keeper, lineage: Lineage, learner: Learner) -> Consolidated:
    if not keeper.publish(lineage, learner, "snapshot"):
        return Consolidated(ConsolidationResult("refused", NO_ROOM), learner, lineage)
    reason = f"a snapshot of step {lineage.step}"
    return Consolidated(ConsolidationResult("promoted", reason, lineage.version), learner, lineage)


def _merge(
    home: Home, disk: Disk, keeper: Keeper, engine: Engine, lineage: Lineage, learner: Learner, config: Config
) -> Consolidated:
    version = keeper.write_version(lineage, learner, "consolidated")
    if version is None:
        return Consolidated(ConsolidationResult("refused", NO_ROOM), learner, lineage)
    folder = home.version(version.version)
    try:
        fresh = engine.merge(learner, folder, config)
    except Unlike as error:
        discard(disk, folder)
        return Consolidated(ConsolidationResult("refused", str(error)), learner, lineage)
    fresh.rewarm(lineage.step)
    renewed = dataclasses.replace(
        lineage,
        base=msgspec.structs.replace(lineage.base, weights_sha256=version.weights_sha256),
        version=version.version,
        published_step=version.step,
    )
    checkpoint = keeper.save(renewed, fresh, "consolidate")
    if checkpoint is None or not keeper.move_head(renewed, checkpoint.name, version.version):
        if checkpoint is not None:
            discard(disk, home.checkpoints / checkpoint.name)
        discard(disk, folder)
        return Consolidated(ConsolidationResult("refused", NO_ROOM), learner, lineage)
    keeper.accept_checkpoint(renewed, checkpoint)
    keeper.accept_version(renewed, version)
    reason = f"the adapter of step {lineage.step} is merged; a fresh one begins"
    return Consolidated(ConsolidationResult("promoted", reason, version.version), fresh, renewed)
