"""QueueManager's desk for Consolidator: the maintenance lease, for when all is quiet or between two files."""

from __future__ import annotations

from contextlib import suppress

from actors.board import Board
from actors.queue.office import BetweenFiles, Office
from actors.queue.unwritable import Unwritable
from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import Done
from protocol.messages.inbox import QuietScan
from protocol.messages.queue import Lease, QuietReport, RequestLease, ReturnLease
from supervisor import Disk, MailboxFull, Reply, Timer, on, on_deferred

INBOX = "InboxWatcher"

LOOK = 1.0
"""Seconds between two looks whether the one who wishes for the lease still waits: a reply token does not ring."""

Asked = tuple[RequestLease, Reply[Lease]]


class LeaseDesk(Office):
    """Lends the lease. While it is out, no job is handed out."""

    def __init__(self, home: Home, store: ConfigStore, disk: Disk, board: Board) -> None:
        super().__init__(home, store, disk, board)
        self._scans: dict[int, Asked] = {}
        """Who waits for InboxWatcher's word, by the number of the scan."""
        self._last_scan = 0
        self._wish: Asked | None = None
        """Who waits for the end of the running file."""
        self._look: Timer | None = None

    @on_deferred(RequestLease)
    async def _request_lease(self, message: RequestLease, reply: Reply[Lease]) -> None:
        token = self.gate.lent_to(message.holder)
        if token is not None:  # its holder came back from a crash, and must be able to return it whatever waits now
            reply.send(Lease(token=token, granted=True))
        elif message.between_files:
            await self._wish_for(message, reply)
        elif (why := self._why_not() or self._work()) is not None:
            reply.send(_refused(why))
        else:
            self._ask_for_quiet(message, reply)

    @on(ReturnLease)
    async def _return_lease(self, message: ReturnLease) -> Done:
        returned = await self.do(self.gate.take_back, message.token)
        await self.offer()
        return Done("" if returned else "it was not out")

    # ------------------------------------------------------------ when all is quiet

    def _ask_for_quiet(self, message: RequestLease, reply: Reply[Lease]) -> None:
        self._scans = {number: asked for number, asked in self._scans.items() if not asked[1].done}
        self._last_scan += 1
        self._scans[self._last_scan] = (message, reply)
        with suppress(MailboxFull):  # then nobody answers before the caller's deadline, and it asks again
            self.context.ref(INBOX).cast(QuietScan(self._last_scan))

    @on(QuietReport)
    async def _quiet_report(self, message: QuietReport) -> None:
        asked = self._scans.pop(message.request, None)
        if asked is None or asked[1].done:
            return
        why = (self._why_not() or self._work()) if message.quiet else "files stand in the inbox"
        if why is not None:
            asked[1].send(_refused(why))
        else:
            await self._lend(*asked)

    # ------------------------------------------------------------ between two files

    async def _wish_for(self, message: RequestLease, reply: Reply[Lease]) -> None:
        if (why := self._why_not()) is not None:
            reply.send(_refused(why))
            return
        if self._wish is not None:
            self._wish[1].send(_refused(f"{message.holder} asked after it"))
        self._wish = (message, reply)
        self.gate.wish(message.holder)
        self.announce()
        await self._between_files(BetweenFiles())

    @on(BetweenFiles)
    async def _between_files(self, message: BetweenFiles) -> None:
        """Lend the lease to who wishes for it, if nothing lies in ``processing/``."""
        if self._look is not None:
            self._look.cancel()
        if self._wish is None:
            return
        asked = self._wish
        if asked[1].done:
            self._wish = None
            self.gate.wish(None)
            self.announce()
            await self.offer()
        elif self._why_not() is None and not self.book.store.counts().processing:
            self._wish = None
            await self._lend(*asked)
        else:
            self._look = self.context.after(LOOK, BetweenFiles())

    # ------------------------------------------------------------ either way

    async def _lend(self, message: RequestLease, reply: Reply[Lease]) -> None:
        try:
            token = await self.do(self.gate.lend, message.holder)
        except Unwritable as error:
            self.gate.wish(None)  # else no file would be begun for as long as its holder waits
            self.announce()
            reply.send(_refused(str(error)))
            return
        if reply.done:  # the caller left meanwhile, and will never give it back
            await self.do(self.gate.take_back, token)
            await self.offer()
        else:
            reply.send(Lease(token=token, granted=True))

    def _why_not(self) -> str | None:
        view = self.gate.view
        if self.gate.stopping or view.stop_after_file:
            return "the daemon stops"
        if view.paused:
            return "training is paused"
        return f"{view.lease} holds the lease" if view.lease else None

    def _work(self) -> str | None:
        number = self.book.store.open_jobs()
        return f"{number} file{'s' if number > 1 else ''} in the queue" if number else None


def _refused(why: str) -> Lease:
    return Lease(token="", granted=False, reason=why)
