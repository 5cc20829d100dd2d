"""QueueManager's desk for InboxWatcher: files that come in."""

from __future__ import annotations

from collections.abc import Sequence

from actors.queue.intake import Intake
from actors.queue.office import Office
from protocol.messages.queue import Accept, Accepted, InboxCount, Refuse
from supervisor import Refused, Reply, on, on_batch, on_deferred


class InboxDesk(Office):
    """Takes files in: many with one commit."""

    @on_batch(Accept)
    async def _accept(self, batch: Sequence[tuple[Accept, Reply[Accepted]]]) -> None:
        answers = await self.do(Intake(self.book).accept, [message for message, _ in batch])
        for (message, reply), given in zip(batch, answers, strict=True):
            self._tell_bringer(message.submit_id, reply, given)
        await self.offer()

    @on_deferred(Refuse)
    async def _refuse(self, message: Refuse, reply: Reply[Accepted]) -> None:
        self._tell_bringer(message.submit_id, reply, await self.do(Intake(self.book).refuse, message))

    @on(InboxCount)
    async def _inbox_count(self, message: InboxCount) -> None:
        """InboxWatcher keeps the board's number itself."""

    def _tell_bringer(self, submit_id: str | None, reply: Reply[Accepted], given: Accepted | Refused) -> None:
        if isinstance(given, Refused):
            reply.fail(given)
            return
        reply.send(given)
        for waiting in self.accepting.pop(submit_id or "", []):
            waiting.send(given)
