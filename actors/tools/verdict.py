"""Whether a model and its settings fit memory and disk, and which settings would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from actors.disk_levels import floors
from actors.tools.shape import Memory, ShapedModel
from protocol.config import Config
from protocol.home import Home
from protocol.messages.disk import CheckpointCost
from supervisor.durable import Disk

HEADROOM = 0.9
"""Share of memory that may be planned with."""
LEAST_LENGTH = 128


@dataclass(frozen=True, slots=True)
class MemoryVerdict:
    device: str
    available_bytes: int
    """Of the whole device or machine (or its control group), not of what happens to be free now."""
    need: Memory
    fits: bool


@dataclass(frozen=True, slots=True)
class DiskVerdict:
    free_bytes: int
    checkpoint_bytes: int
    version_bytes: int
    held_back_bytes: int
    """What stays free: ``disk.refuse_below``, or more where this model's checkpoints need more."""
    to_come_bytes: int
    """What checkpoints and versions will still take, up to ``checkpoint.keep`` and ``publish.keep``."""
    fits: bool


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Settings that would fit, where those asked for do not."""

    settings: dict[str, Any]
    memory_bytes: int


def judge_memory(model: ShapedModel, config: Config, longest: int | None) -> MemoryVerdict:
    """Compare the highest point of an optimizer step with the memory there is."""
    need = model.memory(config.training, longest)
    available = device_memory(model.device)
    return MemoryVerdict(str(model.device), available, need, need.total <= HEADROOM * available)


def judge_disk(model: ShapedModel, config: Config, home: Home, disk: Disk) -> DiskVerdict:
    """Compare what will be written with what is free and must stay free, on the home's file system."""
    folder = next(path for path in (home.root, *home.root.absolute().parents) if path.exists())
    free = disk.free(folder).free_bytes
    sizes = model.sizes
    cost = CheckpointCost(sizes.checkpoint_bytes, sizes.version_bytes)
    held = floors(config.disk, cost).refuse
    # kept ones, one in the making; of versions also the base and the current one
    full = (config.checkpoint.keep + 1) * cost.checkpoint_bytes + (config.publish.keep + 3) * cost.version_bytes
    to_come = max(0, full - _bytes_below(home.checkpoints) - _bytes_below(home.versions))
    return DiskVerdict(free, cost.checkpoint_bytes, cost.version_bytes, held, to_come, free - to_come >= held)


def suggest(config: Config, tokenizer: Any, longest: int | None) -> Suggestion | None:
    """Return the mildest change of settings that fits memory, or None if none does.

    In this order: smaller passes (which change nothing but speed), LoRA, shorter rows, both.
    """
    for changes in _changes(config, longest):
        training = msgspec.structs.replace(config.training, **changes)
        tried = msgspec.structs.replace(config, training=training)
        verdict = judge_memory(ShapedModel(tried, tokenizer), tried, longest)
        if verdict.fits:
            return Suggestion({f"training.{key}": value for key, value in changes.items()}, verdict.need.total)
    return None


def _changes(config: Config, longest: int | None) -> Iterator[dict[str, Any]]:
    training = config.training
    methods = ["full", "lora"] if training.method == "full" else ["lora"]
    lengths = [training.max_length]
    while lengths[-1] // 2 >= LEAST_LENGTH:
        lengths.append(lengths[-1] // 2)
    for length in lengths:
        for method in methods:
            changes: dict[str, Any] = {}
            if method != training.method:
                changes["method"] = method
            if length != training.max_length:
                changes["max_length"] = length
            row = min(longest or length, length)
            if training.micro_batch_tokens > row:
                yield changes | {"micro_batch_tokens": row}
            elif changes:
                yield changes


def device_memory(device: torch.device) -> int:
    """Return the memory of the device that computes, in bytes; for the CPU that of the machine or control group."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    return min([total, *_control_group_limits()])


def _control_group_limits() -> Iterator[int]:
    """Yield the memory limits of this process's control group (v2) and of those above it."""
    group = next(
        (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/"
    )
    folder = Path("/sys/fs/cgroup") / group.lstrip("/")
    for path in (folder, *folder.parents):
        limit = path / "memory.max"
        if limit.is_file() and (text := limit.read_text().strip()) != "max":
            yield int(text)


def _bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) if folder.exists() else 0
