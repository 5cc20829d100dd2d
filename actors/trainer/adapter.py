"""LoRA: an adapter beside frozen weights, and its merge into a copy of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch

from protocol.config import TrainingSection

NAME = "default"


class UnsuitableTarget(Exception):
    """``training.lora_targets`` names something that cannot be adapted soundly."""


def add_adapter(model: Any, training: TrainingSection) -> Any:
    """Wrap ``model`` with a fresh adapter (B = 0, so it changes nothing yet), drawing A from torch's generator.

    Raises:
        UnsuitableTarget: a target is tied to another layer's weights, is no linear layer, or does not exist.
    """
    targets = target_modules(model, training.lora_targets)
    from peft import LoraConfig, get_peft_model  # a second and a half, which full fine-tuning need not spend

    config = LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=training.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks, nobody can help
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)  # peft sets it right itself
        return get_peft_model(model, config)


def _adapted(model: Any) -> dict[str, Any]:
    """Return the layers that bear an adapter, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def target_modules(model: Any, wanted: str) -> str | list[str]:
    """Return the targets in peft's words. ``all-linear`` leaves out the output layer, so it never meets a tie.

    Raises:
        UnsuitableTarget: see :func:`add_adapter`.
    """
    if wanted == "all-linear":
        return wanted
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for target in names:
        found = [module for name, module in model.named_modules() if name == target or name.endswith(f".{target}")]
        if not found:
            raise UnsuitableTarget(f"training.lora_targets: the model has no layer {target!r}")
        for module in found:
            if _is_tied(model, module):
                raise UnsuitableTarget(
                    f"training.lora_targets: {target!r} shares its weights with another layer, which a "
                    "merge would tear from it; leave it out"
                )
            if module.__class__.__name__ not in ("Linear", "Conv1D"):
                raise UnsuitableTarget(f"training.lora_targets: {target!r} is no linear layer")
    return names


def _is_tied(model: Any, module: Any) -> bool:
    weight = getattr(module, "weight", None)
    holders = sum(getattr(one, "weight", None) is weight for one in model.modules())
    return weight is not None and holders > 1


def set_dropout(model: Any, share: float) -> None:
    """Give the adapter the dropout of the job that is trained: a setting, not state."""
    for layer in _adapted(model).values():
        layer.lora_dropout[NAME] = torch.nn.Dropout(share) if share else torch.nn.Identity()


def merged_tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the base's tensors under its own names, with the adapter added: copies, the model goes on unmerged.

    The sum is made in float32, tensor by tensor, and rounded once, to the base's type: added in bfloat16, an update
    below 2^-9 of a weight would vanish, night after night. Tensors without an adapter are returned as they are.
    """
    base = model.get_base_model()
    layers = _adapted(base)
    for name, tensor in base.state_dict().items():
        owner, found, leaf = name.rpartition(".base_layer.")
        if found and leaf == "weight":
            yield f"{owner}.{leaf}", _add(tensor, layers[owner])
        elif found:
            yield f"{owner}.{leaf}", tensor
        elif ".lora_" not in name:
            yield name, tensor


def _add(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    update: torch.Tensor = layer.lora_B[NAME].weight.detach().float() @ layer.lora_A[NAME].weight.detach().float()
    if layer.fan_in_fan_out:
        update = update.T
    update = update * layer.scaling[NAME]
    if not bool(update.any()):
        return weight  # adding zero would turn -0.0 into 0.0: another digest for the same model
    return (weight.float() + update).to(weight.dtype)
