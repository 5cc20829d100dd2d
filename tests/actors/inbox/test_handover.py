"""What becomes of a settled file."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.inbox import handover
from actors.inbox.handover import Candidate, judge
from actors.inbox.validation import Stamp
from protocol.config import Config
from protocol.inbox_names import read_name


class StopAsked(Exception):
    """Stands for a stop of the daemon."""


def test_a_stop_is_heeded_in_the_midst_of_few_and_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred lines may be gigabytes: they are not counted, the clock is asked."""
    monkeypatch.setattr(handover, "BETWEEN_LOOKS", 0.0)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 10)
    candidate = Candidate(Path("x.jsonl"), Stamp.of(path.stat()), read_name(Path("x.jsonl")))
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            raise StopAsked

    with pytest.raises(StopAsked):
        judge(tmp_path, [candidate], Config(), look)
