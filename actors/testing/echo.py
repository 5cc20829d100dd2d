"""EchoTrainer: a training process without torch that keeps the whole contract of the real one.

It claims, trains in steps, checkpoints, moves HEAD, commits, publishes, yields, stops and resumes from a cursor,
through the same port and the same files; its weights are a running digest, so that a sample lost, doubled or out of
order shows. It starts in a blink. For tests of crashes and recovery, ours and those of anyone who embeds the daemon::

    async with open_daemon(home, trainer=ECHO, preload=ECHO_PRELOAD) as daemon: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.to_thread
import msgspec

from actors.testing.echo_session import EchoSession
from actors.trainer.actor_port import ActorPort
from protocol.config import Config
from protocol.home import Home
from protocol.messages.trainer import ConfigChanged, ConsolidationResult, GateOpened, RunConsolidation, Yield
from supervisor import Actor, Disk, Mailbox, Reason, Refused, Reply, on, on_deferred

ECHO = "actors.testing.echo:EchoTrainer"
ECHO_PRELOAD = ("actors.testing.echo",)


class Busy(Refused):
    """A consolidation is under way already."""


class EchoTrainer(Actor):
    """Stands in for TrainerActor: same arguments, same messages, same isolation."""

    mailbox: ClassVar[Mailbox] = Mailbox(bound=256, overflow="wait")

    def __init__(self, home: str, config: dict[str, Any], revision: int, disk: Disk | None = None) -> None:
        self._home = Home(Path(home))
        self._config = msgspec.convert(config, Config)
        self._revision = revision
        self._disk = disk or Disk()
        self._port: ActorPort
        self._ended: anyio.Event

    async def on_start(self) -> None:
        self._ended = anyio.Event()
        self._port = ActorPort(self.context, self._config)
        self.context.spawn(self._train, name="session")

    async def on_stop(self, reason: Reason) -> None:
        """Let the session come to the end of its step and save."""
        self._port.ask_stop()
        await self._ended.wait()

    async def _train(self) -> None:
        session = EchoSession(self._home, self._disk, self._port)
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
