"""A real daemon per test, gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import Daemon, daemon
from tests.system.killing import undisturbed

__all__ = ["undisturbed"]

BOTH_BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Return a maker of daemons, not yet started, each with a home of its own by name."""
    with ExitStack() as stack:

        def make(
            name: str = "home", settings: Mapping[str, Mapping[str, Any]] | None = None, backend: str = "asyncio"
        ) -> Daemon:
            return stack.enter_context(daemon(tmp_path / name, settings, backend))

        yield make
