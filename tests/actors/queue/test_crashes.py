"""Death at each durable step of each change, and at each durable step of each recovery from it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.actors.queue.crashes import SCENARIOS

LEAST_STEPS = {
    "accepting": 4,
    "committing": 10,
    "interrupting": 10,
    "failing": 15,
    "refusing": 5,
    "changing": 8,
    "falling_back": 8,
    "losing_sqlite": 5,
    "crossing": 12,
}
"""Fewer would mean that the scenario no longer does what it is there for."""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_death_loses_or_doubles_a_file(scenario: str) -> None:
    command = [sys.executable, "-m", "tests.actors.queue.crashes", scenario]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["points"] >= LEAST_STEPS[scenario]
    assert counted["recoveries"] > counted["points"], "recoveries were crashed, too"
