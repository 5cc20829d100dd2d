"""Random storms over random trees agree with the rules in every step; see ``make soak`` for ten thousand of them."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.supervisor.model.playing import play


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Each storm reports hundreds of crashes, as it should."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=200)
@given(chance=st.randoms(use_true_random=False))
def test_a_storm_agrees_with_the_rules(backend: str, chance: random.Random) -> None:
    """Hypothesis makes a failing storm small."""
    play(chance, backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_seeded_storms_agree_with_the_rules(backend: str) -> None:
    """The first of those that ``make soak`` plays; most can be compared to their end."""
    whole = sum(play(random.Random(seed), backend) for seed in range(300))
    assert whole > 250
