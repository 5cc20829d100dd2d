"""Several rows in one sequence, and none of them sees another: no padding is computed.

Attention is masked block by block and each row's positions begin at 0, so that a row's logits are those that it has
alone. Not every architecture keeps to a mask (recurrent layers carry state across it), so the model is asked before it
is believed: packing without that check has spoilt training in several libraries (trl#1230). Nor may a mask of ours
stand for that of layers that look back a limited way only: it would let them see further than they ever did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from actors.trainer.engine import Encoded

CLOSE = 1e-4
"""Greatest difference of a logit in float32, relative to the largest."""
CLOSE_ROUNDED = 5e-2
"""The same where the model computes in fewer bits."""


class Unpackable(Exception):
    """This model lets rows of a pack see each other, or cannot be told not to."""


def packs(rows: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
    """Distribute rows over as few sequences of at most ``budget`` tokens as best-fit-decreasing finds.

    A longer row has a sequence of its own. Pure, so that a resumed step is packed as it was.
    """
    found: list[list[Encoded]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        fitting = [place for place, left in enumerate(room) if left >= len(row.ids)]
        if fitting:
            place = min(fitting, key=lambda place: (room[place], place))
            found[place].append(row)
            room[place] -= len(row.ids)
        else:
            found.append([row])
            room.append(budget - len(row.ids))
    return found


def pack_inputs(model: Any, lengths: Sequence[int], device: torch.device) -> dict[str, torch.Tensor]:
    """Return the mask and the positions of a pack of rows of these lengths.

    Raises:
        Unpackable: the model's attention takes no mask of blocks.
    """
    positions = torch.cat([torch.arange(length) for length in lengths])
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = torch.tril(row[:, None] == row[None, :])[None, None].to(device)
    attention = model.config._attn_implementation
    if attention == "sdpa":
        mask = allowed
    elif attention == "eager":
        dtype = model.get_input_embeddings().weight.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill(~allowed, torch.finfo(dtype).min)
    else:
        raise Unpackable(f"{attention} attention takes no mask of blocks")
    return {"attention_mask": mask, "position_ids": positions[None].to(device)}


def check_isolation(model: Any, device: torch.device, longest: int) -> None:
    """Pack two probes and compare: the second's logits must be those that it has alone, whatever the first one is.

    ``longest``: tokens that a row may have.

    Raises:
        Unpackable: they are not, or some layers do not look back over the whole of such a row.
    """
    settings = model.config.get_text_config()
    for name in ("sliding_window", "attention_chunk_size"):
        window = getattr(settings, name, None)
        if window is not None and window < longest:
            raise Unpackable(f"some layers of this model see {window} tokens ({name}), fewer than training.max_length")
    size = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    first, other, second = (torch.randint(size, (12,), generator=generator) for _ in range(3))
    was_training = model.training
    model.eval()
    with torch.no_grad():
        inputs = pack_inputs(model, [12, 12], device)
        alone = model(input_ids=second[None].to(device), use_cache=False).logits[0].float()
        behind_first, behind_other = (
            model(input_ids=torch.cat([one, second])[None].to(device), use_cache=False, **inputs).logits[0, 12:].float()
            for one in (first, other)
        )
    model.train(was_training)
    bound = CLOSE if model.get_input_embeddings().weight.dtype in (torch.float32, torch.float64) else CLOSE_ROUNDED
    off = float((behind_first - alone).abs().max()) / max(1.0, float(alone.abs().max()))
    if off > bound or not torch.equal(behind_first, behind_other):
        raise Unpackable("this model lets packed rows see each other")
