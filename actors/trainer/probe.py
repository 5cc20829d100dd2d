"""Whether a merged model says what base and adapter said: exports that were quietly wrong are the commonest fault."""

from __future__ import annotations

from typing import Any

import torch

PROBES, PROBE_LENGTH = 4, 64
CLOSE = 1e-4
"""Greatest difference of a logit in float32, relative to the largest."""
CLOSE_ROUNDED = 0.02
"""Mean difference of the logits, relative to their spread, where the weights are stored in fewer bits."""


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
