"""What the tests of the wire share: where the server listens, which encoding is spoken, and by which client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol.aclient import connect
from protocol.framing import Encoding
from tests.protocol.house import BlockingInThread


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture(params=["json", "msgpack"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    encoding: Encoding = request.param
    return encoding


@pytest.fixture(params=[BlockingInThread, connect])
def connecting(request: pytest.FixtureRequest) -> Any:
    """Either client: ``async with connecting(path) as client``."""
    return request.param
