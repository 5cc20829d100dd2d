"""QueueManager's desk for TrainerActor: claims, what became of the claimed, and what a dead trainer leaves behind.

What the trainer tells is never lost to a full disk: it is answered with "ask again" until it is written down. The
trainer waits for that, as it waits for room for a checkpoint, and no attempt is spent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar

from actors.board import Board
from actors.queue import attempts
from actors.queue.job import Job
from actors.queue.ledger import head_checkpoint, standing
from actors.queue.office import RETRY, TRAINER, Office, WrongState, answer, refuse
from actors.queue.recovery import boot_id
from actors.queue.retention import expire
from actors.queue.settlement import settle
from actors.queue.unwritable import Unwritable
from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import Done, Message, Phase
from protocol.messages.queue import (
    Claim,
    ClaimReply,
    Committed,
    JobPhase,
    JobRefused,
    NoWork,
    Published,
    Release,
    Trained,
)
from supervisor import (
    CallFailed,
    Crash,
    Disk,
    Down,
    Killed,
    Reason,
    Reply,
    StartFailed,
    Timeout,
    on,
    on_deferred,
    on_down,
)

_HELD = re.compile(r"held by PID \d+(, PID \d+)*")

D = TypeVar("D")
M = TypeVar("M")


class _TrainerEnded(Message, frozen=True):
    """An incarnation of TrainerActor has ended: behind all that it had said before."""

    incarnation: int


class _ClaimWaited(Message, frozen=True):
    """The waiting claim has waited for as long as it asked."""


def _patiently(
    handler: Callable[[D, M], Awaitable[Done]],
) -> Callable[[D, M, Reply[Done]], Coroutine[Any, Any, None]]:
    """Answer "ask again" while the queue cannot write: to the trainer a refusal would be the end."""

    @wraps(handler)
    async def answering(self: D, message: M, reply: Reply[Done]) -> None:
        try:
            reply.send(await handler(self, message))
        except Unwritable as error:
            reply.fail(CallFailed(str(error)))

    return answering


class TrainerDesk(Office):
    """Hands jobs to the trainer and learns what became of them."""

    def __init__(self, home: Home, store: ConfigStore, disk: Disk, board: Board) -> None:
        super().__init__(home, store, disk, board)
        self.seen_checkpoint: str | None = None
        """The checkpoint that HEAD named when rows and ledger last agreed."""
        self._ends: dict[int, Reason] = {}
        """Why incarnations of the trainer ended, until that has been dealt with."""

    @on_deferred(Claim)
    async def _(self, message: Claim, reply: Reply[ClaimReply]) -> None:
        self.turn_away(NoWork(reason="waited"))
        if reply.done:
            return
        self.gate.device(None)
        self.claim = reply
        try:
            none = await self._serve_claim()
        except Unwritable:
            none = NoWork(reason="disk")
        if none is None:
            return
        if message.wait_s <= 0:
            self.turn_away(none)
        else:
            self.claim_timer = self.context.after(message.wait_s, _ClaimWaited())

    async def _serve_claim(self) -> NoWork | None:
        now = self.context.ref(TRAINER).cell.incarnation
        if self.board.claimant not in (0, now):  # its end was not heard: this actor was itself restarting
            await self._trainer_gone(self.board.claimant)
        elif self.held is not None:  # the answer to its claim was lost
            self.let_go()
        self.board.claimant = now
        if await self.look(head_checkpoint, self.home) != self.seen_checkpoint:
            await self.do(self._resettle)
        return await self.take_out()

    @on(_ClaimWaited)
    async def _(self, message: _ClaimWaited) -> None:
        self.turn_away(self.gate.closed() or self.gate.nothing_new() or NoWork(reason="waited"))

    @on(JobPhase)
    async def _(self, message: JobPhase) -> None:
        if self.held is None or self.held.job != message.id:
            return
        left_loading = self.phase == "loading" and message.phase != "loading"
        self.phase = message.phase
        if left_loading and not self.gate.stopping:
            with suppress(Unwritable):  # then a daemon that vanishes with it is not blamed on it: so be it
                if (job := await self.held_job()) is not None:
                    await self.do(self.book.leave_loading, job, boot_id())

    @on_deferred(Trained)
    @_patiently
    async def _(self, message: Trained) -> Done:
        job = await self.look(self.book.store.get, message.id)
        if job is not None and job.state not in ("processing", "trained", "done"):
            raise WrongState(f"{message.id} is {job.state}: it was not claimed")
        if job is not None and job.state == "processing":
            await self.do(self.book.trained, job, message.stats)
        await self._was_let_go(message.id)
        return Done()

    @on_deferred(Committed)
    @_patiently
    async def _(self, message: Committed) -> Done:
        await self.do(self._commit, message)
        self.seen_checkpoint = message.checkpoint
        if self.held is not None and any(job.id == self.held.job for job in message.jobs):
            await self._was_let_go(self.held.job)
        return Done()

    @on(Published)
    async def _(self, message: Published) -> None:
        with suppress(Unwritable):  # the manifests tell it at the next start
            await self.do(self._publish_version, message)

    @on_deferred(Release)
    @_patiently
    async def _(self, message: Release) -> Done:
        job = await self.look(self.book.store.get, message.id)
        if job is not None and job.state == "processing":
            if self.cancelling:
                await self.do(self.book.end, job, "cancelled by request", message.stats)
            elif self.skipping:
                await self.do(self.book.back_to_low, job, "skipped", "", message.stats)
            elif message.why == "stop":
                await self.do(self.book.back_to_line, job, message.stats, "the daemon stops")
            else:
                await self.do(self.book.rest, job, message.stats)
        await self._was_let_go(message.id)
        return Done()

    @on_deferred(JobRefused)
    @_patiently
    async def _(self, message: JobRefused) -> Done:
        job = await self.look(self.book.store.get, message.id)
        if job is not None and job.state not in ("failed", "done"):
            await self.do(self.book.park, job, message.reason, message.lines)
        await self._was_let_go(message.id)
        return Done()

    # ------------------------------------------------------------ a trainer that is gone

    @on_down
    async def _(self, down: Down) -> None:
        """Put the notice behind what the dead trainer had said: a monitor's notice overtakes the mailbox."""
        if down.name == TRAINER and down.incarnation:
            self.gate.device(_device_held(down.reason))
            self.announce()
            self._ends[down.incarnation] = down.reason
            self.context.after(0, _TrainerEnded(down.incarnation))

    @on(_TrainerEnded)
    async def _(self, message: _TrainerEnded) -> None:
        try:
            if self.board.claimant <= message.incarnation:
                await self._trainer_gone(message.incarnation)
        except Unwritable:
            self.context.after(RETRY, message)
        else:
            self._ends.pop(message.incarnation, None)

    async def _trainer_gone(self, incarnation: int) -> None:
        """Deal with the end of an incarnation, or of the last of several that ended unheard."""
        held = self.held
        await self.do(self._after_trainer, held.job if held else None, self.phase, self._ends.get(incarnation))
        self.board.claimant = 0
        if held is not None:
            await self._was_let_go(held.job)

    async def _was_let_go(self, job: str) -> None:
        """Nobody holds this job any more: answer those who waited for that, as it went. A second time does nothing."""
        if self.held is None or self.held.job != job:
            return
        now = await self.look(self.book.store.get, job)
        self.let_go()
        over = WrongState(f"{now.file if now else job} was finished before it could be let go of")
        if now is not None and now.priority == "low" and now.state == "queued":
            answer(self.skipping, Done())
        refuse(self.skipping, over)
        if now is None or now.state == "cancelled":
            answer(self.cancelling, Done())
        refuse(self.cancelling, over)
        self.announce()

    # ------------------------------------------------------------ in the worker thread

    def _commit(self, message: Committed) -> None:
        known = ((self.book.store.get(job.id), job.stats) for job in message.jobs)
        late = [(job, stats) for job, stats in known if job is not None and job.state != "done"]
        self.book.committed(late, message.cursors)
        expire(self.book, self.home, self.settings.current.queue.keep_done)

    def _publish_version(self, message: Published) -> None:
        with self.book.store.transaction():
            self.book.store.set_version(message.jobs, message.version)

    def _resettle(self) -> None:
        """HEAD is not what was last heard of: believe it."""
        found = standing(self.home)
        if found.ledger is not None:
            settle(self.book, found.ledger)
        self.seen_checkpoint = found.checkpoint

    def _after_trainer(self, held: str | None, phase: Phase, reason: Reason | None) -> None:
        """Believe HEAD, take back what only the dead process knew to be trained, and let go of the job that it held.

        One commit does the last, so that a full disk cannot have the same death counted twice.
        """
        self._resettle()
        for job in self.book.store.in_state("trained"):
            self.book.untrained(job)
        job_held = None if held is None else self.book.store.get(held)
        if job_held is None or job_held.state != "processing":
            return
        if self.cancelling:
            self.book.end(job_held, "cancelled by request")
        elif phase != "loading" and isinstance(reason, Crash | Killed | Timeout):
            self._count(job_held, reason)
        elif self.skipping:
            self.book.back_to_low(job_held, "skipped")
        else:  # what happens in loading counts against the trainer
            self.book.rest(job_held)

    def _count(self, job: Job, reason: Crash | Killed | Timeout) -> None:
        """Do what the end of its trainer costs a job: a crash is a failure that it reports, all else a vanishing."""
        most, skipped = self.settings.current.queue.max_attempts, bool(self.skipping)
        if isinstance(reason, Crash):
            outcome, said = attempts.reported(job.tally, most), f"{reason.error_type}: {reason.text}"
            self.book.failed(job, outcome, said, reason.traceback or None, skipped=skipped)
        else:
            outcome, said = attempts.trainer_vanished(job.tally, most), f"the training process vanished: {reason}"
            self.book.failed(job, outcome, said, None, skipped=skipped)


def _device_held(reason: Reason) -> str | None:
    """Return who keeps a training process from being started, if that is why it was not (see ``hosting.py``)."""
    found = _HELD.search(reason.text) if isinstance(reason, StartFailed) else None
    return f"device {found[0]}" if found else None
