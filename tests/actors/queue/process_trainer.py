"""A training process that claims a job, leaves ``loading``, says who it is, and then does nothing more."""

from __future__ import annotations

import os
from pathlib import Path

from protocol.messages.queue import Claim, GetQueue, JobPhase
from protocol.messages.trainer import GateOpened
from supervisor import Actor, on


class ClaimingTrainer(Actor):
    async def on_start(self) -> None:
        self.context.spawn(self._work)

    @on(GateOpened)
    async def _(self, message: GateOpened) -> None:
        """It waits in its claim anyway."""

    async def _work(self) -> None:
        queue = self.context.ref("QueueManager")
        reply = await queue.call(Claim(wait_s=30), timeout=60)
        assert reply.job is not None
        queue.cast(JobPhase(reply.job.id, "training"))
        await queue.call(GetQueue())  # the phase has been heard
        home = Path(reply.job.path).parent.parent.parent
        new = home / "trainer.new"
        new.write_text(f"{os.getpid()} {self.context.incarnation}")
        new.rename(home / "trainer")
