"""What the tests of the wire share: where the server listens, and which encoding its client speaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.framing import Encoding


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture(params=["json", "msgpack"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    encoding: Encoding = request.param
    return encoding
