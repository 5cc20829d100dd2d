"""QueueManager's desk for InboxWatcher: files that come in."""

from __future__ import annotations

from collections.abc import Sequence

from actors.queue.intake import Answer, Intake
from actors.queue.office import Office
from protocol.messages.queue import Accept, Accepted, Refuse
from supervisor import Refused, Reply, on_batch, on_deferred


class InboxDesk(Office):
    """Takes files in: many with one commit."""

    @on_batch(Accept)
    async def _accept(self, batch: Sequence[tuple[Accept, Reply[Accepted]]]) -> None:
        answers = await self.do(Intake(self.book).accept, [message for message, _ in batch])
        for (_, reply), given in zip(batch, answers, strict=True):
            _give(reply, given)
        await self.offer()

    @on_deferred(Refuse)
    async def _refuse(self, message: Refuse, reply: Reply[Accepted]) -> None:
        _give(reply, await self.do(Intake(self.book).refuse, message))


def _give(reply: Reply[Accepted], answer: Answer) -> None:
    if isinstance(answer, Refused):
        reply.fail(answer)
    else:
        reply.send(answer)
