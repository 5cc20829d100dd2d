"""What several files of these tests are run with."""

from __future__ import annotations

import pytest

from supervisor import ChildSpec
from tests.supervisor.processes import process_child, task_child


@pytest.fixture(params=["task", "process"])
def child(request: pytest.FixtureRequest) -> ChildSpec:
    """A Worker in either kind of child."""
    return task_child("Worker") if request.param == "task" else process_child()
