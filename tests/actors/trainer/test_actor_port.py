"""The session's way to the daemon's actors, against actors that answer as a test wants."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from actors.trainer.actor_port import ActorPort
from protocol.config import Config
from protocol.messages.queue import Claim, Claimed, ClaimReply, NoWork
from supervisor import Actor, ChildSpec, Reply, SupervisorSpec, on_deferred, open_tree

pytestmark = pytest.mark.anyio

JOB = Claimed("a", "a.jsonl", "/nowhere/a.jsonl", "0" * 64, "normal", 1)


class Queue(Actor):
    """Hands a job to the claim that waits in the very moment in which the next claim ends its wait."""

    def __init__(self) -> None:
        self.waiting: Reply[ClaimReply] | None = None
        self.waits = anyio.Event()

    @on_deferred(Claim)
    async def _(self, message: Claim, reply: Reply[ClaimReply]) -> None:
        if self.waiting is None:
            self.waiting = reply
            self.waits.set()
            return
        self.waiting.send(ClaimReply(job=JOB))
        reply.send(ClaimReply(none=NoWork("paused")))


class Trainer(Actor):
    """Gives its port to the test."""

    port: ActorPort

    async def on_start(self) -> None:
        self.port = ActorPort(self.context, Config())


async def test_the_newest_word_of_the_queue_counts() -> None:
    """Else a job would be trained that the queue believes to be held by nobody."""
    queue, trainer = Queue(), Trainer()
    tree = SupervisorSpec(
        "root", [ChildSpec("QueueManager", lambda: queue), ChildSpec("TrainerActor", lambda: trainer)]
    )
    answers: list[ClaimReply] = []

    async def claim() -> None:
        answers.append(await anyio.to_thread.run_sync(trainer.port.claim, 30.0))

    async with open_tree(tree), anyio.create_task_group() as tasks:
        with anyio.fail_after(10):
            tasks.start_soon(claim)
            await queue.waits.wait()
            while not answers:
                trainer.port.ring()
                await anyio.sleep(0)
    assert answers == [ClaimReply(none=NoWork("paused"))]
