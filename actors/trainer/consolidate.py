"""The night's work on the weights: all of it becomes HEAD at once, or nothing does.

Full fine-tuning publishes a snapshot. LoRA merges the adapter into the base, reads the result back from disk, and
compares it with base and adapter: exports that were quietly wrong are the commonest fault of merges
(LLaMA-Factory#9051). Then the merged weights are the base of a fresh adapter.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import torch

from actors.trainer import rng
from actors.trainer.keeper import Keeper
from actors.trainer.lineage import Lineage
from actors.trainer.model import load_folder
from actors.trainer.publish import versions
from actors.trainer.state import Learner
from protocol.config import Config
from protocol.home import Home
from protocol.messages.trainer import ConsolidationResult
from protocol.records import VersionManifest
from supervisor.durable import Disk

PROBES, PROBE_LENGTH = 4, 64
CLOSE = 1e-4
"""Greatest difference of a logit in float32, relative to the largest."""
CLOSE_ROUNDED = 0.02
"""Mean difference of the logits, relative to their spread, where the weights are stored in fewer bits."""

NO_ROOM = "the disk is full and a stop was asked"


@dataclasses.dataclass(frozen=True, slots=True)
class Consolidated:
    """What training goes on with: the old learner and lineage if it was refused."""

    result: ConsolidationResult
    learner: Learner
    lineage: Lineage


def consolidate(
    home: Home, disk: Disk, keeper: Keeper, lineage: Lineage, learner: Learner, config: Config
) -> Consolidated:
    """Consolidate the state that the newest checkpoint holds."""
    if (last := _last(home)) is not None and last.step == lineage.step:
        reason = f"nothing was trained since version {last.version}"
        return Consolidated(ConsolidationResult("refused", reason), learner, lineage)
    if learner.method == "full":
        return _snapshot(keeper, lineage, learner)
    tensors, state = rng.capture()
    done = _merge(home, disk, keeper, lineage, learner, config)
    if done.learner is learner:
        rng.restore(tensors, state)
    return done


def _last(home: Home) -> VersionManifest | None:
    return next((one for one in versions(home) if one.kind in ("snapshot", "consolidated")), None)


def _snapshot(keeper: Keeper, lineage: Lineage, learner: Learner) -> Consolidated:
    if not keeper.publish(lineage, learner, "snapshot"):
        return Consolidated(ConsolidationResult("refused", NO_ROOM), learner, lineage)
    reason = f"a snapshot of step {lineage.step}"
    return Consolidated(ConsolidationResult("promoted", reason, lineage.version), learner, lineage)


def _merge(home: Home, disk: Disk, keeper: Keeper, lineage: Lineage, learner: Learner, config: Config) -> Consolidated:
    version = keeper.write_version(lineage, learner, "consolidated")
    if version is None:
        return Consolidated(ConsolidationResult("refused", NO_ROOM), learner, lineage)
    folder = home.version(version.version)
    source = load_folder(folder, config.model)
    expected = probe_logits(learner.model, learner.device)
    fresh = Learner(source, config)
    if problem := differ(expected, probe_logits(fresh.model, fresh.device), set(fresh.stored_types())):
        disk.remove_tree(folder)
        return Consolidated(ConsolidationResult("refused", problem), learner, lineage)
    fresh.warm_from = lineage.step
    renewed = dataclasses.replace(
        lineage,
        base=msgspec.structs.replace(lineage.base, weights_sha256=version.weights_sha256),
        version=version.version,
        published_step=version.step,
    )
    checkpoint = keeper.save(renewed, fresh, "consolidate")
    if checkpoint is None or not keeper.move_head(renewed, checkpoint.name, version.version):
        disk.remove_tree(folder)
        return Consolidated(ConsolidationResult("refused", NO_ROOM), learner, lineage)
    keeper.accept_checkpoint(renewed, checkpoint)
    keeper.accept_version(renewed, version)
    reason = f"the adapter of step {lineage.step} is merged; a fresh one begins"
    return Consolidated(ConsolidationResult("promoted", reason, version.version), fresh, renewed)


def probe_logits(model: Any, device: torch.device) -> torch.Tensor:
    """Return the logits of a few fixed sequences, in float32 on the CPU, without dropout; no random state moves."""
    size = model.get_input_embeddings().num_embeddings
    ids = torch.randint(size, (PROBES, PROBE_LENGTH), generator=torch.Generator().manual_seed(0)).to(device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits.float().cpu()
    model.train(was_training)
    return logits


def differ(expected: torch.Tensor, found: torch.Tensor, stored: set[torch.dtype]) -> str | None:
    """Say how far the merged model is from base and adapter, if it is too far; else None."""
    if not bool(torch.isfinite(found).all()):
        return "the merged model's output is not finite"
    apart = (expected - found).abs()
    if stored <= {torch.float32, torch.float64} or not stored:
        off, bound = float(apart.max()) / max(1.0, float(expected.abs().max())), CLOSE
    else:
        off, bound = float(apart.mean()) / float(expected.std()), CLOSE_ROUNDED
    return f"the merged model's output is off by {off:.2g}, more than {bound:g}" if off > bound else None
