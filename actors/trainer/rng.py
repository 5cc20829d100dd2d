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

from actors.trainer.device import accelerator

Tensors = dict[str, torch.Tensor]


def seed_all(seed: int) -> None:
    """Seed every generator at the birth of a lineage."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # accelerators too


def capture() -> tuple[Tensors, dict[str, Any]]:
    """Return the states of torch (CPU, and each accelerator in use) as tensors, of Python and numpy as JSON."""
    tensors = {"cpu": torch.get_rng_state()}
    kind, module = _accelerator()
    if module is not None and module.is_initialized():
        tensors |= {f"{kind}.{index}": state for index, state in enumerate(module.get_rng_state_all())}
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
    kind, module = _accelerator()
    for index in range(module.device_count() if module is not None else 0):
        if (held := tensors.get(f"{kind}.{index}")) is not None:
            module.set_rng_state(held, index)


def _accelerator() -> tuple[str, Any]:
    """Return the kind of accelerator that there is (``cuda``, ``xpu``, ...) and its module of torch, or None."""
    found = accelerator()
    return (found.type, torch.get_device_module(found)) if found is not None else ("", None)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever the block draws, training does not notice: saving and measuring must not change the maths."""
    tensors, state = capture()
    try:
        yield
    finally:
        restore(tensors, state)
