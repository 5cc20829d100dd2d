"""A model that cannot learn one particular sign: whatever holds it gives a loss that is not a number."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from actors.trainer.tiny import Shape, tiny_model, tiny_tokenizer

SIGN = "\N{SKULL AND CROSSBONES}"


def poisoned_model(folder: Path) -> None:
    """Save a small model in which the input embedding of a token of SIGN, which no other text has, is NaN."""
    tokenizer = tiny_tokenizer(512)
    model = tiny_model(tokenizer, 0, Shape(vocabulary=512, width=32, inner=64, layers=2, heads=2, tied=False))
    token = tokenizer(SIGN, add_special_tokens=False).input_ids[-1]
    assert token not in tokenizer("".join(map(chr, range(32, 127)))).input_ids
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = torch.nan
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def poisoned_rows(count: int) -> str:
    """Return JSONL of which the last row holds SIGN."""
    return "".join(json.dumps({"text": f"Row {n}{f' {SIGN}' * (n == count - 1)}"}) + "\n" for n in range(count))
