"""How fast this machine trains: by a few real steps where they take seconds, else from its matrix speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from actors.tools.shape import Sizes, from_configuration
from actors.trainer.data import take_step
from actors.trainer.engine import Encoded
from actors.trainer.model import Source, pick_device, prepare_torch
from actors.trainer.torch_learner import TorchLearner
from protocol.config import Config

STEPS = 4
MEASURE_FOR = 20.0
"""Seconds that measuring may take, as estimated beforehand; else it stays an estimate."""
MEASURE_PARAMETERS = 2_000_000_000
"""More than this are not made at random just to be measured."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens, prompts included, per second."""

    tokens_per_s: float
    measured: bool
    how: str


def speed_of(config: Config, tokenizer: Any, sizes: Sizes, rows: Sequence[Encoded], fits: bool) -> Speed:
    """Return the training speed: measured on ``rows`` with random weights of the right shape, or estimated.

    Args:
        fits: whether the model fits memory; if not, nothing is made.
    """
    estimate = _estimate(config, sizes)
    seconds = STEPS * config.training.batch_tokens / estimate
    if not fits or not rows or seconds > MEASURE_FOR or sizes.parameters > MEASURE_PARAMETERS:
        return Speed(estimate, False, "an estimate from this machine's matrix speed")
    return Speed(_measure(config, tokenizer, rows), True, f"measured over {STEPS} steps on this machine")


def _estimate(config: Config, sizes: Sizes) -> float:
    """Return tokens per second at the speed of one large matrix product: an upper bound, halved for the rest.

    A token costs 2 operations per weight forward, 2 for its gradient, and 2 more where the weight itself is trained
    (Kaplan et al. 2020).
    """
    prepare_torch(config)
    device = pick_device(config.model.device)
    side = 1024
    left, right = (torch.randn(side, side, device=device) for _ in range(2))
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        float((left @ right)[0, 0])  # reading a value waits for the device
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best / 2 / (4 * sizes.parameters + 2 * sizes.trained)


def _measure(config: Config, tokenizer: Any, rows: Sequence[Encoded]) -> float:
    torch.manual_seed(config.training.seed)
    learner = TorchLearner(Source(from_configuration(config, tokenizer), tokenizer), config)
    learner.begin_job(config.training)
    batch = config.training.batch_tokens
    tokens = sum(len(row.ids) for row in rows)
    rows = [*rows] * -(-STEPS * batch // tokens)  # full steps, however short the file
    lengths = [len(row.ids) for row in rows]
    position = seen = 0
    seconds = 0.0
    for step in range(STEPS):
        places = take_step(range(len(rows)), position, lengths, batch)
        position = (position + len(places)) % len(rows)
        began = time.perf_counter()
        done = learner.step([rows[place] for place in places], step, config.training, lambda: None)
        if step:  # the first one allocates
            seconds += time.perf_counter() - began
            seen += done.seen
    return seen / max(seconds, 1e-6)
