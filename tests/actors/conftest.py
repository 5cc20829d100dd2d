"""What tests that compute have in common."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Compute with one thread. Several wait for each other in busy loops, which takes long where cores are busy."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
