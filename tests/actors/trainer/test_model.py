"""What is set before the first operation, so that a run can be repeated to the last bit."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from actors.inbox.rows import TextRow
from actors.trainer import model
from actors.trainer.engine import Encoded
from actors.trainer.tiny import tiny_tokenizer
from actors.trainer.torch_learner import TorchLearner
from tests.actors.trainer.fake_port import settings

KERNELS = ("flash", "mem_efficient", "cudnn")


def enabled() -> set[str]:
    return {name for name in KERNELS if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()}


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts the switches of torch back, which belong to the whole process."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before, on = enabled(), torch.are_deterministic_algorithms_enabled()
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.use_deterministic_algorithms(on)
    for name in KERNELS:
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(name in before)


def test_on_an_accelerator_attention_is_left_with_the_plain_kernel(
    flags: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "pick_device", lambda wanted: torch.device("cuda"))
    model.prepare_torch(settings())
    assert enabled() == set()
    assert torch.backends.cuda.math_sdp_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_the_cpu_keeps_its_kernels(flags: None) -> None:
    before = enabled()
    model.prepare_torch(settings())
    assert enabled() == before
    assert torch.are_deterministic_algorithms_enabled()


def test_nothing_is_forced_where_it_is_not_asked(flags: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = enabled()
    monkeypatch.setattr(model, "pick_device", lambda wanted: torch.device("cuda"))
    model.prepare_torch(settings(deterministic=False))
    assert enabled() == before
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_rows_are_cut_to_the_positions_that_a_model_has(method: str) -> None:
    """GPT-2 has a vector for each position, and fails at the first one too many."""
    tokenizer = tiny_tokenizer(512)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=512, n_positions=16, n_embd=32, n_layer=2, n_head=2))
    config = settings(method=method, max_length=64)
    learner = TorchLearner(model.Source(net, tokenizer), config)
    assert learner.begin_job(config.training) == ["training.max_length is 16: the model has no more positions"]
    row = learner.encoder(config.training).encode(TextRow("many words " * 20))
    assert len(row.ids) == 16
    learner.step([row, Encoded([1, 2, 3], [True] * 3)], 0, config.training, lambda: None)
    short = settings(method=method, max_length=8).training
    assert learner.begin_job(short) == []
    assert len(learner.encoder(short).encode(TextRow("many words " * 20)).ids) == 8


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_full_disk_is_told_as_such_whichever_library_meets_it(name: str, small: str, tmp_path: Path) -> None:
    """Else a version that finds no room would be the failure of whatever job is being trained."""
    source = model.load_folder(small, settings(small).model)
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        model.save_model(tmp_path, source.model, source.tokenizer, source.model.state_dict())
    assert caught.value.errno == errno.ENOSPC


def test_so_is_what_the_system_says_of_the_weights(small: str, tmp_path: Path) -> None:
    source = model.load_folder(small, settings(small).model)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            model.save_model(tmp_path, source.model, source.tokenizer, source.model.state_dict())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
