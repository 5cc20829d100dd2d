"""One optimizer step: the sum of the losses over all its tokens, divided by their number, in as many passes as needed.

The number is counted before the first backward pass, over the whole step and after the shift, so a token weighs the
same in whichever pass it comes. Dividing each pass by its own count (mean of means) was a bug of nearly every trainer
until 2024 (transformers#34191).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from actors.trainer.data import micro_batches
from actors.trainer.masks import Encoded
from actors.trainer.optimizer import learning_rate, set_hyperparameters
from actors.trainer.packing import pack_inputs, packs
from actors.trainer.state import Learner
from protocol.config import TrainingSection

IGNORED = -100


class NotFinite(Exception):
    """The loss or the gradient of a step is infinite or not a number. The weights have not been touched."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    """Mean over the tokens that bore loss, before the step."""
    tokens: int
    """Tokens that bore loss."""
    seen: int
    """Tokens in all, prompts included, padding not."""
    grad_norm: float
    learning_rate: float


def optimizer_step(
    learner: Learner, rows: Sequence[Encoded], step: int, training: TrainingSection, beat: Callable[[], None]
) -> StepResult:
    """Train ``rows`` in one optimizer step, the lineage's ``step``-th (from 0). ``beat`` is called after each pass.

    Raises:
        NotFinite: nothing was changed.
    """
    count = sum(row.targets for row in rows)
    loss = 0.0
    split = packs if training.packing else micro_batches
    for batch in split(rows, training.micro_batch_tokens):
        with learner.autocast():
            part = summed_loss(learner.model, batch, learner.device, packed=training.packing) / count
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
        beat()
    norm = float(torch.nn.utils.clip_grad_norm_(learner.parameters.values(), training.max_grad_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        learner.optimizer.zero_grad(set_to_none=True)
        raise NotFinite(f"optimizer step {step}: loss {loss}, gradient norm {norm}")
    rate = learning_rate(step, learner.warm_from, training)
    set_hyperparameters(learner.optimizer, rate, training)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    return StepResult(loss, count, sum(len(row.ids) for row in rows), norm, rate)


def summed_loss(model: Any, rows: Sequence[Encoded], device: torch.device, *, packed: bool = False) -> torch.Tensor:
    """Return the sum of the cross-entropies of all valid shifted targets, in float32 or better.

    ``packed``: the rows stand one behind the other in one sequence; else one below the other, padded. The model is
    never given labels: what it would do with their count differs from model to model (transformers#37766).
    """
    if packed:
        ids, labels = chain(rows)
        inputs = pack_inputs(model, [len(row.ids) for row in rows], device)
    else:
        ids, mask, labels = collate(rows)
        inputs = {"attention_mask": mask.to(device)}
    logits = model(input_ids=ids.to(device), use_cache=False, **inputs).logits[:, :-1]
    targets = labels[:, 1:].to(device)
    valid = targets != IGNORED
    chosen = logits[valid]
    wide = chosen if chosen.dtype == torch.float64 else chosen.float()
    return functional.cross_entropy(wide, targets[valid], reduction="sum")


def collate(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, attention mask and labels of the rows, padded on the right."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for place, row in enumerate(rows):
        length = len(row.ids)
        ids[place, :length] = torch.tensor(row.ids)
        mask[place, :length] = 1
        labels[place, :length] = torch.tensor(_labels(row))
    return ids, mask, labels


def chain(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels of the rows as one sequence. The first token of each is predicted from nothing."""
    ids = [id for row in rows for id in row.ids]
    labels = [label for row in rows for label in (IGNORED, *_labels(row)[1:])]
    return torch.tensor([ids]), torch.tensor([labels])


def _labels(row: Encoded) -> list[int]:
    return [id if on else IGNORED for id, on in zip(row.ids, row.trained, strict=True)]
