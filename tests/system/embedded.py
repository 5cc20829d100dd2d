"""The whole daemon embedded in a test: real trainer process, injected clock, fault port."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from actors.daemon import Daemon
from protocol.config import Config
from protocol.messages.system import GetStatus, Status
from supervisor import CallFailed, SystemClock
from tests.system.harness import SETTINGS

T = TypeVar("T")


class MovedClock(SystemClock):
    """The machine's clock, with the calendar moved as far as the test likes."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def local(self) -> datetime:
        return super().local() + self.offset

    def now(self) -> datetime:
        return super().now() + self.offset

    def go_to(self, moment: datetime) -> None:
        """Make it that local time now, and run on from there."""
        self.offset = moment - super().local()


def config(settings: dict[str, dict[str, Any]] | None = None) -> Config:
    merged = {name: dict(values) for name, values in SETTINGS.items()}
    for name, values in (settings or {}).items():
        merged.setdefault(name, {}).update(values)
    return msgspec.convert(merged, Config)


async def status(daemon: Daemon) -> Status:
    return await daemon.tree.ref("ControlSocket").call(GetStatus())


async def until(daemon: Daemon, what: str, test: Callable[[Status], Any], seconds: float = 90.0) -> Status:
    """Wait until ``status`` passes the test; ControlSocket may be between two lives meanwhile."""
    last: Status | None = None
    with anyio.move_on_after(seconds):
        while True:
            try:
                last = await status(daemon)
            except CallFailed:
                last = None
            if last is not None and test(last):
                return last
            await anyio.sleep(0.02)
    raise AssertionError(f"waited {seconds:g} s in vain for: {what}; status: {last}")


def drop(daemon: Daemon, name: str, content: str) -> Path:
    aside = daemon.home.root.parent / f".{name}.aside"
    aside.write_text(content)
    return aside.rename(daemon.home.inbox / name)
