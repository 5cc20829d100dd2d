"""AdamW on float32 masters, and a learning rate that is a pure function of the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from protocol.config import TrainingSection

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(parameters: Mapping[str, torch.nn.Parameter], training: TrainingSection) -> torch.optim.AdamW:
    """Return AdamW over the named parameters. Vectors (norms, biases) are not decayed, matrices are."""
    decayed = [one for one in parameters.values() if one.ndim >= 2]
    rest = [one for one in parameters.values() if one.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed, "decayed": True}, {"params": rest, "decayed": False}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=training.learning_rate, fused=True)


def learning_rate(step: int, warm_from: int, training: TrainingSection) -> float:
    """Return the rate of the lineage's optimizer step ``step`` (from 0): linear warm-up, then constant across files.

    ``warm_from`` is the step at which the optimizer began empty: 0, or that of the last consolidation. With no end in
    sight there is nothing to decay towards (the stable phase of WSD, Hu et al. 2024, "MiniCPM").
    """
    risen = step - warm_from + 1
    return training.learning_rate * min(1.0, risen / max(1, training.warmup_steps))


def set_hyperparameters(optimizer: torch.optim.AdamW, rate: float, training: TrainingSection) -> None:
    """Give the next step its hyper-parameters: they are settings, not state, and come with the job."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["betas"] = (training.beta1, training.beta2)
        group["weight_decay"] = training.weight_decay if group["decayed"] else 0.0


def moments(optimizer: torch.optim.AdamW, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return the optimizer's state by parameter name (``exp_avg/NAME``): names survive where indices shift."""
    return {
        f"{key}/{name}": optimizer.state[parameter][key]
        for name, parameter in parameters.items()
        if parameter in optimizer.state
        for key in MOMENTS
    }


def restore_moments(
    optimizer: torch.optim.AdamW, parameters: Mapping[str, torch.nn.Parameter], saved: dict[str, torch.Tensor]
) -> None:
    """Move saved moments into storage allocated as the optimizer itself would at its first step; empty ``saved``."""
    for name, parameter in parameters.items():
        if f"step/{name}" not in saved:
            continue
        state = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
        state |= {key: torch.zeros_like(parameter, memory_format=torch.preserve_format) for key in MOMENTS[1:]}
        for key in MOMENTS:
            state[key].copy_(saved.pop(f"{key}/{name}"))
        optimizer.state[parameter] = state
