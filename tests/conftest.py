"""Every asynchronous test runs on both event loops; generated cases are the same in each run.

Homes lie in memory where there is room: a test can kill a process but not cut the power, so a sync to a real disk shows
it nothing, and waiting for thousands of them takes long. ``--basetemp`` puts them elsewhere.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator
from pathlib import Path

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


MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes. What the folders of living tests need is a small part of it."""


def pytest_configure(config: pytest.Config) -> None:
    """Choose where homes lie, for this run and all its workers."""
    if config.option.basetemp is None and MEMORY.is_mount():
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize > ROOM and not found.f_flag & (os.ST_NOEXEC | os.ST_RDONLY):
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all that is tested with the garbage collector at rest, and have it never look through that again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


LONG = {"system", "test_examples.py", "test_readme.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that start daemons first: they are the longest, and no worker should be left alone with one."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))
