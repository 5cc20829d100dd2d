"""Random states go through JSON and tensors and come back to the last bit."""

from __future__ import annotations

import json
import random

import numpy
import torch

from actors.trainer import rng


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(numpy.random.standard_normal()), float(torch.rand(()))


def test_what_is_restored_draws_the_same() -> None:
    rng.seed_all(7)
    draw()  # numpy and Python each hold half of a pair of normal numbers now
    tensors, state = rng.capture()
    state = json.loads(json.dumps(state))
    expected = [draw() for _ in range(3)]
    assert [draw() for _ in range(3)] != expected
    rng.restore(tensors, state)
    assert [draw() for _ in range(3)] == expected


def test_the_seed_decides() -> None:
    rng.seed_all(7)
    one = draw()
    rng.seed_all(7)
    assert draw() == one
    rng.seed_all(8)
    assert draw() != one


def test_a_block_that_draws_leaves_no_trace() -> None:
    rng.seed_all(7)
    one = draw()
    rng.seed_all(7)
    with rng.undisturbed():
        draw()
    assert draw() == one
