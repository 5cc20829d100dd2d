"""The loss of rows, summed over their tokens: whoever takes a step divides it by the step's count, once.

So a token weighs the same in whichever pass it comes. Dividing each pass by its own count (mean of means) was a bug of
nearly every trainer until 2024 (transformers#34191).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from actors.trainer.engine import Encoded
from actors.trainer.packing import pack_inputs

IGNORED = -100


def summed_loss(model: Any, rows: Sequence[Encoded], device: torch.device, *, packed: bool = False) -> torch.Tensor:
    """Return the sum of the cross-entropies of all valid shifted targets: a scalar, in float32 or better.

    ``packed``: the rows stand one behind the other in one sequence; else one below the other, padded. The model is
    never given labels: what it would do with their count differs from model to model (transformers#37766).
    """
    if packed:
        ids, labels = chain(rows)
        inputs = pack_inputs(model, [len(row.ids) for row in rows], device)
    else:
        ids, mask, labels = collate(rows)
        inputs = {"attention_mask": mask.to(device)}
    targets = labels[:, 1:]
    needed = (targets != IGNORED).any(0).nonzero()[:, 0]
    if 2 * len(needed) < targets.shape[1] and "logits_to_keep" in inspect.signature(_plain(model).forward).parameters:
        inputs["logits_to_keep"] = needed.to(device)  # of long prompts the vocabulary's scores are never computed
        targets = targets[:, needed]
    logits = model(input_ids=ids.to(device), use_cache=False, **inputs).logits[:, : targets.shape[1]]
    targets = targets.to(device)
    valid = targets != IGNORED
    chosen = logits[valid]
    wide = chosen if chosen.dtype == torch.float64 else chosen.float()
    return functional.cross_entropy(wide, targets[valid], reduction="sum")


def _plain(model: Any) -> Any:
    """Return the model of transformers: an adapter's wrapper takes any argument, and passes it on."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def collate(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, attention mask and labels, each of shape (rows, longest row), padded on the right."""
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
    """Return ids and labels of shape (1, tokens): the rows as one sequence. Nothing predicts the first of each."""
    ids = [id for row in rows for id in row.ids]
    labels = [label for row in rows for label in (IGNORED, *_labels(row)[1:])]
    return torch.tensor([ids]), torch.tensor([labels])


def _labels(row: Encoded) -> list[int]:
    return [id if on else IGNORED for id, on in zip(row.ids, row.trained, strict=True)]
