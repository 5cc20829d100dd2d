"""The daemon's end of a training process: it acks at once and runs the session in a thread of its own.

The event loop of the training process stays free: it hears requests to stop, pause or skip while a step is computed,
and leaves them where the session looks at each step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.to_thread
import msgspec

from actors.trainer.actor_port import ActorPort
from actors.trainer.engine import Engine
from actors.trainer.session import Session
from protocol.config import Config
from protocol.home import Home
from protocol.messages.trainer import ConfigChanged, ConsolidationResult, GateOpened, RunConsolidation, Yield
from supervisor import Actor, Disk, Mailbox, Reason, Refused, Reply, on, on_deferred


class Busy(Refused):
    """A consolidation is under way already."""


class SessionActor(Actor):
    """One training process around an engine. A crash of it is the failure of the job that it held."""

    mailbox: ClassVar[Mailbox] = Mailbox(bound=256, overflow="wait")

    def __init__(self, home: str, config: dict[str, Any], revision: int, disk: Disk | None = None) -> None:
        self._home = Home(Path(home))
        self._config = msgspec.convert(config, Config)
        self._revision = revision
        self._disk = disk or Disk()
        self._port: ActorPort
        self._ended: anyio.Event

    @abstractmethod
    def engine(self, home: Home) -> Engine:
        """Return what trains."""

    async def on_start(self) -> None:
        self._ended = anyio.Event()
        self._port = ActorPort(self.context, self._config)
        self.context.spawn(self._train, name="session")

    async def on_stop(self, reason: Reason) -> None:
        """Let the session come to its next optimizer step and save."""
        self._port.ask_stop()
        await self._ended.wait()

    async def _train(self) -> None:
        session = Session(self._home, self._disk, self._port, self.engine(self._home))
        try:
            await anyio.to_thread.run_sync(session.run, limiter=anyio.CapacityLimiter(1))
        finally:
            self._ended.set()

    def summary(self) -> Mapping[str, object]:
        return {"revision": self._revision, **self._port.summary()}

    @on(Yield)
    async def _(self, message: Yield) -> None:
        self._port.ask_yield(message.id, message.why)

    @on(GateOpened)
    async def _(self, message: GateOpened) -> None:
        self._port.ring()

    @on(ConfigChanged)
    async def _(self, message: ConfigChanged) -> None:
        self._revision = message.revision
        self._port.renew(message.config)

    @on_deferred(RunConsolidation)
    async def _(self, message: RunConsolidation, reply: Reply[ConsolidationResult]) -> None:
        if not self._port.ask_consolidation(message.lease, reply):
            reply.fail(Busy("a consolidation is under way"))
