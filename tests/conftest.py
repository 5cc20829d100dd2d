"""Every asynchronous test runs on both event loops; generated cases are the same in each run."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator

import hypothesis
import pytest

# A shell that runs the suite in the background has it ignore Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "here", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("here")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all that is tested with the garbage collector at rest, and have it never look through that again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that start daemons first: they are the longest, and no worker should be left alone with one."""
    items.sort(key=lambda item: "system" not in item.path.parts)
