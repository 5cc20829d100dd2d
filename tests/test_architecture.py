"""The table of durable steps in docs/architecture.md names the test that shows each row, and those tests exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.actors.queue.crashes import SCENARIOS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
ROWS = [row.split("|")[1:-1] for row in TEXT.splitlines() if re.match(r"\| \d+ \|", row)]
SHOWN = dict(re.findall(r"^- ([A-Z]) `(tests/[^`]+)`$", TEXT, re.MULTILINE))


def test_the_rows_are_numbered_in_order() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) > 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_each_row_names_tests_that_exist(row: list[str]) -> None:
    named = re.findall(r"\b[A-Z]\b", row[-1])
    assert named, "no test shows it"
    for letter in named:
        path, _, test = SHOWN[letter].partition("::")
        assert f"def {test}(" in (ROOT / path).read_text(), SHOWN[letter]
    assert set(re.findall(r"`(\w+)`", row[-1])) <= set(SCENARIOS)
