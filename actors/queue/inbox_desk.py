"""QueueManager's desk for InboxWatcher and Consolidator: files that come in, and the lease that needs none to come."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from actors.queue.intake import Intake
from actors.queue.office import Office
from protocol.messages.common import Done
from protocol.messages.inbox import QuietScan
from protocol.messages.queue import (
    Accept,
    Accepted,
    InboxCount,
    Lease,
    QuietReport,
    Refuse,
    RequestLease,
    ReturnLease,
)
from supervisor import MailboxFull, Refused, Reply, on, on_batch, on_deferred

INBOX = "InboxWatcher"


class InboxDesk(Office):
    """Takes files in, and grants the maintenance lease when there are none."""

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

    # ------------------------------------------------------------ the maintenance lease

    @on_deferred(RequestLease)
    async def _request_lease(self, message: RequestLease, reply: Reply[Lease]) -> None:
        if (why := self._why_not(message.holder)) is not None:
            reply.send(Lease(token="", granted=False, reason=why))
            return
        self.leases = {number: asked for number, asked in self.leases.items() if not asked[1].done}
        self.last_lease += 1
        self.leases[self.last_lease] = (message, reply)
        with suppress(MailboxFull):  # then nobody answers before the caller's deadline, and it asks again
            self.context.ref(INBOX).cast(QuietScan(self.last_lease))

    @on(QuietReport)
    async def _quiet_report(self, message: QuietReport) -> None:
        asked = self.leases.pop(message.request, None)
        if asked is None or asked[1].done:
            return
        request, reply = asked
        why = self._why_not(request.holder) if message.quiet else "files stand in the inbox"
        if why is not None:
            reply.send(Lease(token="", granted=False, reason=why))
            return
        token = await self.do(self.gate.lend, request.holder)
        if reply.done:  # the caller left meanwhile, and will never give it back
            await self.do(self.gate.take_back, token)
        else:
            reply.send(Lease(token=token, granted=True))

    @on(ReturnLease)
    async def _return_lease(self, message: ReturnLease) -> Done:
        returned = await self.do(self.gate.take_back, message.token)
        await self.offer()
        return Done("" if returned else "it was not out")

    def _why_not(self, holder: str) -> str | None:
        view = self.gate.view
        if view.paused:
            return "training is paused"
        if view.stop_after_file:
            return "the daemon stops after the running file"
        if view.lease not in (None, holder):
            return f"{view.lease} holds the lease"
        if number := self.book.store.open_jobs():
            return f"{number} file{'s' if number > 1 else ''} in the queue"
        return None
