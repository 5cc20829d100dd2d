"""The model made on the spot: small, offline, and the same each time."""

from __future__ import annotations

import torch

from actors.trainer import rng
from actors.trainer.model import load_source
from actors.trainer.tiny import tiny_tokenizer
from protocol.config import ModelSection


def test_it_is_small_and_the_same_each_time() -> None:
    one, two, other = (load_source(ModelSection(), seed) for seed in (5, 5, 6))
    assert 1_000_000 < one.model.num_parameters() < 3_000_000
    assert one.tokenizer.backend_tokenizer.to_str() == two.tokenizer.backend_tokenizer.to_str()
    same = [torch.equal(*pair) for pair in zip(one.model.parameters(), two.model.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(one.model.parameters()), next(other.model.parameters()))


def test_making_it_draws_no_random_number() -> None:
    before = rng.capture()[0]["cpu"]
    load_source(ModelSection(), 5)
    assert torch.equal(before, rng.capture()[0]["cpu"])


def test_any_text_comes_back() -> None:
    tokenizer = tiny_tokenizer()
    for text in ("plain words", "ünïcödé 中文 🚂\n\ttabs", "\x00\x7f", " leading and trailing "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_can_be_stored_in_bfloat16() -> None:
    assert load_source(ModelSection(dtype="bfloat16"), 0).model.dtype == torch.bfloat16
