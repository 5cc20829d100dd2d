"""Consolidator: asks for the maintenance lease when the night's work is due, has it done, and remembers the outcome.

It never works while anything waits: the lease is granted only with inbox, queue and ``processing/`` empty; or, if that
has been waited for in vain for ``consolidation.force_after``, between two files. The work runs in the training process,
all or nothing; whatever goes wrong, the old model stays and the lease goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date

import msgspec
from anyio import to_thread

from actors.board import Board
from actors.consolidator.memory import promoted_at, recall, remember
from actors.consolidator.schedule import Plan, day_of, due, next_due, overdue
from actors.settings_store import ConfigStore
from actors.status import CONSOLIDATOR_LEASE
from protocol.home import Home
from protocol.messages.common import Message, Trouble
from protocol.messages.consolidator import ConsolidateNow, ConsolidatorView, GetConsolidator
from protocol.messages.queue import Lease, RequestLease, ReturnLease
from protocol.messages.trainer import ConfigChanged, ConsolidationResult, RunConsolidation
from protocol.records import NewerFormat, Unreadable
from supervisor import (
    Actor,
    CallFailed,
    ConnectionLost,
    Disk,
    HandlerFailed,
    NotRunning,
    Pending,
    Reply,
    Restarting,
    Stopping,
    on,
    on_deferred,
)

NAME = "Consolidator"
QUEUE = "QueueManager"
TRAINER = "TrainerActor"

LOOK = 60.0
"""Seconds between two looks at the clock."""
EAGER = 1.0
"""Seconds between two requests of the lease while a person waits for it."""
LEASE_PATIENCE = 120.0
"""Seconds that QueueManager and InboxWatcher have to answer for the lease: a scan of a million files takes a while."""
FILE_PATIENCE = 24 * 3600.0
"""Seconds that the running file has to come to its end when the line is to be interrupted after it."""
TRIES = 3
"""Training processes that may die of the work before the night's is given up."""
WORK_PATIENCE = 24 * 3600.0
"""Seconds that the work may take; the training process is watched for progress by others."""


class _Look(Message, frozen=True):
    """Time to look at the clock."""


class _Worked(Message, frozen=True):
    """The task that tried to do the work has ended. ``result`` None: it could not even begin, and may try again."""

    result: ConsolidationResult | None


class Consolidator(Actor):
    """The schedule of the night's work. It calls QueueManager and TrainerActor from a task, so it always answers."""

    def __init__(self, home: Home, store: ConfigStore, disk: Disk, board: Board) -> None:
        self._home = home
        self._store = store
        self._disk = disk
        self._board = board
        self._plan: Plan
        self._asking = False
        """A task is under way: from the request of the lease to its return."""
        self._running = False
        """It has the lease."""
        self._wish: Pending[Lease] | None = None
        """The lease is asked for although files wait."""
        self._deaths = 0
        self._unwritten = False
        """The plan in force is not durable yet."""
        self._wanted: list[Reply[ConsolidationResult]] = []

    async def on_start(self) -> None:
        try:
            plan = await to_thread.run_sync(recall, self._home)
        except (NewerFormat, Unreadable) as error:
            self._board.troubles[NAME] = Trouble(f"consolidation: {error}")
            raise
        self._board.troubles.pop(NAME, None)
        await self._keep(plan or Plan(first_day=self._today()))
        if self._board.gate.lease == CONSOLIDATOR_LEASE:  # a former incarnation had it: the same holder gets it again
            self._asking = True
            self.context.spawn(self._give_back)
        self.context.every(LOOK, _Look())
        self.context.self_ref.cast(_Look())

    def summary(self) -> Mapping[str, object]:
        return {"running": self._running, "waiting": len(self._waiting())}

    @on(GetConsolidator)
    async def _get(self, message: GetConsolidator) -> ConsolidatorView:
        return self._view()

    @on_deferred(ConsolidateNow)
    async def _now(self, message: ConsolidateNow, reply: Reply[ConsolidationResult]) -> None:
        self._wanted.append(reply)
        self._begin()

    @on(ConfigChanged)
    async def _config_changed(self, message: ConfigChanged) -> None:
        self._consider()

    @on(_Look)
    async def _look(self, message: _Look) -> None:
        if self._unwritten:
            await self._keep(self._plan)
        self._consider()

    @on(_Worked)
    async def _worked(self, message: _Worked) -> None:
        self._asking = self._running = False
        if message.result is None:
            self._show()
            if self._waiting():
                self.context.after(EAGER, _Look())
            return
        plan = msgspec.structs.replace(
            self._plan,
            last_day=self._today(),
            last_at=self.context.clock.now(),
            last_outcome=message.result.outcome,
            last_reason=message.result.reason,
        )
        await self._keep(plan)
        waiting, self._wanted = self._waiting(), []
        for reply in waiting:
            reply.send(message.result)
        event = {"event": "consolidated", "outcome": message.result.outcome, "reason": message.result.reason}
        self.context.publish("state", event)

    async def _keep(self, plan: Plan) -> None:
        """Go on with this plan, and make it durable: now, or as soon as the disk lets us."""
        self._plan = plan
        try:
            await to_thread.run_sync(remember, self._home, self._disk, plan)
        except OSError as error:
            self._unwritten = True
            text = f"consolidation: what was done cannot be noted: {error.strerror}: {error.filename}"
            self._board.troubles[NAME] = Trouble(text, "mend that, and it is noted by itself; stokehold doctor")
        else:
            if self._unwritten:
                self._board.troubles.pop(NAME, None)
            self._unwritten = False
        self._show()

    # ---------------------------------------------------------------- when

    def _today(self) -> date:
        return day_of(self.context.clock.local(), self._store.current.consolidation.after)

    def _consider(self) -> None:
        settings = self._store.current.consolidation
        local = self.context.clock.local()
        if self._waiting() or (settings.enabled and due(self._plan, local, settings.after)):
            self._begin()
        if self._wish is not None and not self._is_overdue():
            self._wish.cancel()
        self._show()

    def _is_overdue(self) -> bool:
        """Whether the line has been waited for long enough, and is to be interrupted between two files."""
        settings = self._store.current.consolidation
        late = overdue(self._plan, self.context.clock.local(), settings.after).total_seconds()
        return settings.enabled and 0 < settings.force_after <= late

    def _begin(self) -> None:
        if not self._asking:
            self._asking = True
            self.context.spawn(self._work)

    def _waiting(self) -> list[Reply[ConsolidationResult]]:
        """Return the people who still wait for the work to be done."""
        self._wanted = [reply for reply in self._wanted if not reply.done]
        return self._wanted

    # ---------------------------------------------------------------- the work, in a task

    async def _work(self) -> None:
        result = await self._try()
        self.context.self_ref.cast(_Worked(result))

    async def _try(self) -> ConsolidationResult | None:
        lease = await self._lease(between_files=self._is_overdue())
        if not lease.granted:
            return None
        self._running = True
        self._show()
        try:
            if not self._waiting() and await to_thread.run_sync(self._is_done):
                return ConsolidationResult(
                    outcome="promoted", reason="it was done already, by a daemon that then ended"
                )
            result = await self.context.ref(TRAINER).call(RunConsolidation(lease.token), timeout=WORK_PATIENCE)
        except CallFailed as error:
            return self._failed(error)
        finally:
            await self._return(lease)
        self._deaths = 0
        self._board.troubles.pop(NAME, None)
        return result

    def _is_done(self) -> bool:
        """Whether HEAD shows that today's work is done, although nobody lived to remember it."""
        at = promoted_at(self._home)
        after = self._store.current.consolidation.after
        local = self.context.clock.local()
        return at is not None and day_of(at.astimezone(local.tzinfo), after) == day_of(local, after)

    def _failed(self, error: CallFailed) -> ConsolidationResult | None:
        """The trainer did not do it. One that is not there is waited for; one that dies of it again and again is
        not."""
        if isinstance(error, NotRunning | Stopping) or (isinstance(error, HandlerFailed) and error.code is not None):
            return None
        self._deaths += 1
        if isinstance(error, Restarting | ConnectionLost) and self._deaths < TRIES:
            return None
        self._deaths = 0
        reason = f"it failed: {error}; the model stays as it was"
        self._board.troubles[NAME] = Trouble(f"consolidation: {reason}", "stokehold consolidate --now")
        return ConsolidationResult(outcome="refused", reason=reason)

    async def _give_back(self) -> None:
        """Return the lease of a former incarnation, which did not live to see the end of its work."""
        lease = await self._lease()
        if lease.granted:
            await self._return(lease)
        self.context.self_ref.cast(_Worked(None))

    async def _lease(self, *, between_files: bool = False) -> Lease:
        request = RequestLease(CONSOLIDATOR_LEASE, between_files)
        asked = self.context.ref(QUEUE).request(request, timeout=FILE_PATIENCE if between_files else LEASE_PATIENCE)
        self._wish = asked if between_files else None
        try:
            return await asked
        except CallFailed as error:
            return Lease(token="", granted=False, reason=str(error))
        finally:
            self._wish = None

    async def _return(self, lease: Lease) -> None:
        """Give the lease back; nothing is trained before that has succeeded."""
        while True:
            try:
                await self.context.ref(QUEUE).call(ReturnLease(lease.token), timeout=LEASE_PATIENCE)
                return
            except CallFailed:
                await self.context.clock.sleep(EAGER)

    # ---------------------------------------------------------------- what others see

    def _view(self) -> ConsolidatorView:
        settings = self._store.current.consolidation
        due_at = next_due(self._plan, self.context.clock.local(), settings.after) if settings.enabled else None
        return ConsolidatorView(
            running=self._running,
            next_at=None if due_at is None else due_at.astimezone(UTC),
            last_at=self._plan.last_at,
            last_outcome=self._plan.last_outcome,
            last_reason=self._plan.last_reason,
        )

    def _show(self) -> None:
        self._board.consolidator = self._view()
