"""QueueManager's desk for TrainerActor: claims, what became of the claimed, and what a dead trainer leaves behind."""

from __future__ import annotations

import re

from actors.board import Held
from actors.queue import attempts
from actors.queue.job import Job
from actors.queue.ledger import head_checkpoint, standing
from actors.queue.office import TRAINER, Office, WrongState, answer, refuse
from actors.queue.recovery import boot_id
from actors.queue.retention import expire
from actors.queue.settlement import settle
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
from supervisor import Crash, Down, Killed, Reason, Reply, StartFailed, Timeout, on, on_deferred, on_down

_HELD = re.compile(r"held by PID \d+(, PID \d+)*")


class _TrainerEnded(Message, frozen=True):
    """An incarnation of TrainerActor has ended: behind all that it had said before."""

    incarnation: int


class _ClaimWaited(Message, frozen=True):
    """The waiting claim has waited for as long as it asked."""


class TrainerDesk(Office):
    """Hands jobs to the trainer and learns what became of them."""

    @on_deferred(Claim)
    async def _(self, message: Claim, reply: Reply[ClaimReply]) -> None:
        self.turn_away(NoWork(reason="waited"))
        if reply.done:
            return
        self.gate.device(None)
        if self.held is not None:
            await self._claimed_again(self.held)
        if await self.look(head_checkpoint, self.home) != self.seen_checkpoint:
            await self.do(self._resettle)
        self.claim = reply
        none = await self.take_out()
        if none is None:
            return
        if message.wait_s <= 0 or none.release_device:
            self.turn_away(none)
        else:
            self.claim_timer = self.context.after(message.wait_s, _ClaimWaited())

    @on(_ClaimWaited)
    async def _(self, message: _ClaimWaited) -> None:
        self.turn_away(self.gate.closed() or self.gate.nothing_new() or NoWork(reason="waited"))

    @on(JobPhase)
    async def _(self, message: JobPhase) -> None:
        if self.held is None or self.held.job != message.id:
            return
        left_loading = self.phase == "loading" and message.phase != "loading"
        self.phase = message.phase
        if left_loading and not self.gate.stopping and (job := await self.held_job()) is not None:
            await self.do(self.book.leave_loading, job, boot_id())

    @on(Trained)
    async def _(self, message: Trained) -> Done:
        job = await self.look(self.book.store.get, message.id)
        if job is None or job.state in ("trained", "done"):
            return Done("it was known")
        if job.state != "processing":
            raise WrongState(f"{message.id} is {job.state}: it was not claimed")
        await self.do(self.book.trained, job, message.stats)
        await self._was_let_go(job)
        return Done()

    @on(Committed)
    async def _(self, message: Committed) -> Done:
        await self.do(self._commit, message)
        self.seen_checkpoint = message.checkpoint
        if self.held is not None and any(job.id == self.held.job for job in message.jobs):
            job = await self.held_job()
            if job is not None:
                await self._was_let_go(job)
        return Done()

    @on(Published)
    async def _(self, message: Published) -> None:
        await self.do(self._publish_version, message)

    @on(Release)
    async def _(self, message: Release) -> Done:
        job = await self.look(self.book.store.get, message.id)
        if job is None or job.state != "processing":
            return Done("it was let go of already")
        if self.cancelling:
            await self.do(self.book.end, job, "cancelled by request", message.stats)
        elif self.skipping:
            await self.do(self.book.back_to_low, job, "skipped", "", message.stats)
        elif message.why == "stop":
            await self.do(self.book.back_to_line, job, message.stats, "the daemon stops")
        else:
            await self.do(self.book.rest, job, message.stats)
        await self._was_let_go(job)
        return Done()

    @on(JobRefused)
    async def _(self, message: JobRefused) -> Done:
        job = await self.look(self.book.store.get, message.id)
        if job is None or job.state in ("failed", "done"):
            return Done("it was known")
        await self.do(self.book.park, job, message.reason, message.lines)
        await self._was_let_go(job)
        return Done()

    # ------------------------------------------------------------ a trainer that is gone

    @on_down
    async def _(self, down: Down) -> None:
        """Put the notice behind what the dead trainer had said: a monitor's notice overtakes the mailbox."""
        if down.name == TRAINER and down.incarnation:
            self.gate.device(_device_held(down.reason))
            self.announce()
            self.ends[down.incarnation] = down.reason
            self.context.after(0, _TrainerEnded(down.incarnation))

    @on(_TrainerEnded)
    async def _(self, message: _TrainerEnded) -> None:
        reason = self.ends.pop(message.incarnation, None)
        held = self.held
        if held is not None and held.incarnation <= message.incarnation:
            await self._trainer_gone(held, self.phase, reason)
        elif held is None:
            await self.do(self._after_trainer, None, self.phase, None)

    async def _claimed_again(self, held: Held) -> None:
        """A claim while a job is held: its holder died unheard, or the answer to its claim was lost."""
        if held.incarnation == self.context.ref(TRAINER).cell.incarnation:
            self.let_go()
        else:
            await self._trainer_gone(held, self.phase, self.ends.pop(held.incarnation, None))

    async def _trainer_gone(self, held: Held, phase: Phase, reason: Reason | None) -> None:
        job = await self.look(self.book.store.get, held.job)
        await self.do(self._after_trainer, held.job, phase, reason)
        self.board.held = None
        if job is not None:
            now = await self.look(self.book.store.get, held.job)
            if now is not None and now.state in ("processing", "queued"):
                if self.cancelling:
                    await self.do(self.book.end, now, "cancelled by request")
                elif self.skipping and now.state == "processing":
                    await self.do(self.book.back_to_low, now, "skipped")
            await self._was_let_go(job)

    async def _was_let_go(self, job: Job) -> None:
        """Answer those who waited for the trainer to let go of this job, as it went."""
        if self.held is not None and self.held.job != job.id:
            return
        self.let_go()
        if self.skipping or self.cancelling:
            now = await self.look(self.book.store.get, job.id)
            over = WrongState(f"{job.file} was finished before it could be let go of")
            if now is not None and now.priority == "low" and now.state == "queued":
                answer(self.skipping, Done())
            refuse(self.skipping, over)
            if now is None:
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
        """Believe HEAD, take back what only the dead process knew to be trained, and count what it means for its
        job."""
        self._resettle()
        for job in self.book.store.in_state("trained"):
            self.book.untrained(job)
        job_held = None if held is None else self.book.store.get(held)
        if job_held is None or job_held.state != "processing":
            return
        most = self.settings.current.queue.max_attempts
        if phase == "loading" or not isinstance(reason, Crash | Killed | Timeout):
            self.book.rest(job_held)
        elif isinstance(reason, Crash):
            said = f"{reason.error_type}: {reason.text}"
            self.book.failed(job_held, attempts.reported(job_held.tally, most), said, reason.traceback or None)
        else:
            said = f"the training process vanished: {reason}"
            self.book.failed(job_held, attempts.trainer_vanished(job_held.tally, most), said, None)


def _device_held(reason: Reason) -> str | None:
    """Return who keeps a training process from being started, if that is why it was not (see ``hosting.py``)."""
    found = _HELD.search(reason.text) if isinstance(reason, StartFailed) else None
    return f"device {found[0]}" if found else None
