"""What is set before the first operation, so that a run can be repeated to the last bit."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from actors.trainer import model
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
