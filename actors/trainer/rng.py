"""The random states that training draws from: saved without pickle, restored last.

Anything that builds (a model, an adapter, an iterator over a loader) may draw a number; a run that restores before it
builds drifts by that draw. So whoever resumes calls :func:`restore` as the last thing before the first step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy
import torch

Tensors = dict[str, torch.Tensor]


def seed_all(seed: int) -> None:
    """Seed every generator at the birth of a lineage."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # CUDA devices too


def capture() -> tuple[Tensors, dict[str, Any]]:
    """Return the states of torch (CPU, and each CUDA device) as tensors, those of Python and numpy as JSON."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tensors |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    state = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }
    return tensors, state


def restore(tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Put back what :func:`capture` returned. Devices that are gone by now are passed over."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["cpu"])
    for index in range(torch.cuda.device_count()):
        if (held := tensors.get(f"cuda.{index}")) is not None:
            torch.cuda.set_rng_state(held, index)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever the block draws, training does not notice: saving and measuring must not change the maths."""
    tensors, state = capture()
    try:
        yield
    finally:
        restore(tensors, state)
