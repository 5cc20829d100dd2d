"""QueueManager's desk for people: what stands in the queue, what became of it, and what they want done about it."""

from __future__ import annotations

from actors.queue.intake import accepted, was_accepted
from actors.queue.job import Job
from actors.queue.office import AmbiguousJob, NothingToSkip, Office, UnknownJob, WrongState, answer, enlist
from protocol.messages.common import Done
from protocol.messages.queue import (
    Accepted,
    Cancel,
    GetHistory,
    GetJob,
    GetQueue,
    HistoryEntry,
    JobView,
    Move,
    NoWork,
    Pause,
    Resume,
    Retry,
    Skip,
    StopAfterFile,
    WaitAccepted,
    WaitFinished,
)
from protocol.messages.trainer import GateOpened, Yield
from supervisor import Reply, on, on_deferred


class PeopleDesk(Office):
    """Answers questions and obeys. A refusal is an answer: it says what is wrong, and nothing has changed."""

    # ------------------------------------------------------------ questions

    @on(GetQueue)
    async def _get_queue(self, message: GetQueue) -> list[JobView]:
        return await self.look(self.book.store.listed)

    @on(GetJob)
    async def _get_job(self, message: GetJob) -> JobView:
        return (await self._find(message.job)).view()

    @on(GetHistory)
    async def _get_history(self, message: GetHistory) -> list[HistoryEntry]:
        return await self.look(self.book.store.history, message.limit, message.outcome)

    @on_deferred(WaitAccepted)
    async def _wait_accepted(self, message: WaitAccepted, reply: Reply[Accepted]) -> None:
        job = await self.look(self.book.store.get, message.submit_id)
        over = await self.look(self.book.store.last_end, message.submit_id)
        if job is not None and job.state != "checking":
            reply.send(accepted(job))
        elif job is None and over is not None:
            reply.send(was_accepted(over))
        else:
            enlist(self.accepting, message.submit_id, reply)

    @on_deferred(WaitFinished)
    async def _wait_finished(self, message: WaitFinished, reply: Reply[HistoryEntry]) -> None:
        over = await self.look(self.book.store.last_end, message.job)
        jobs = await self.look(self.book.store.matching, message.job)
        if over is not None and all(job.state in ("done", "failed") for job in jobs):
            reply.send(over)
            return
        job = self._only(jobs, message.job)
        over = await self.look(self.book.store.last_end, job.id)
        if over is not None and job.state in ("done", "failed"):
            reply.send(over)
        else:
            enlist(self.finishing, job.id, reply)

    # ------------------------------------------------------------ one job

    @on(Retry)
    async def _retry(self, message: Retry) -> JobView:
        job = await self._find(message.job)
        if job.state != "failed":
            raise WrongState(f"{job.file} has not failed: it is {job.state}")
        if await self.look(self.book.folders.stamp, self.book.path(job)) is None:
            raise WrongState(f"{job.file} is no longer in queue/failed/: submit it again")
        after = await self.do(self.book.retry, job)
        await self.offer()
        return after.view()

    @on(Move)
    async def _move(self, message: Move) -> JobView:
        job = await self._find(message.job)
        if job.state != "queued":
            raise WrongState(f"{job.file} does not wait in a line: it is {job.state}")
        return (await self.do(self.book.move, job, message.priority)).view()

    @on_deferred(Cancel)
    async def _cancel(self, message: Cancel, reply: Reply[Done]) -> None:
        job = await self._find(message.job)
        if self.held is not None and self.held.job == job.id:
            self.cancelling.append(reply)
            self.tell_trainer(Yield(job.id, "cancel"))
        elif job.state in ("queued", "processing", "checking"):
            await self.do(self.book.end, job, "cancelled by request")
            reply.send(Done())
        else:
            raise WrongState(f"{job.file} is {job.state}: it can no longer be cancelled")

    # ------------------------------------------------------------ the running one, and the gate

    @on_deferred(Skip)
    async def _skip(self, message: Skip, reply: Reply[Done]) -> None:
        if self.held is not None:
            self.skipping.append(reply)
            self.tell_trainer(Yield(self.held.job, "skip"))
            return
        interrupted = await self.look(self.book.store.in_state, "processing")
        if not interrupted:
            raise NothingToSkip("no file is in training")
        await self.do(self.book.back_to_low, interrupted[0], "skipped")
        reply.send(Done())
        await self.offer()

    @on_deferred(Pause)
    async def _pause(self, message: Pause, reply: Reply[Done]) -> None:
        await self.do(lambda: self.gate.pause(release=message.release))
        self.pausing.append(reply)
        if self.held is not None:
            self.tell_trainer(Yield(self.held.job, "pause"))
        else:
            answer(self.pausing, Done())
        if message.release:
            self.turn_away(NoWork(reason="paused", release_device=True))
            self.tell_trainer(GateOpened())

    @on(Resume)
    async def _resume(self, message: Resume) -> Done:
        await self.do(self.gate.resume)
        await self.offer()
        return Done()

    @on(StopAfterFile)
    async def _stop_after_file(self, message: StopAfterFile) -> Done:
        await self.do(self.gate.stop_after_file)
        return Done()

    # ------------------------------------------------------------ finding a job

    async def _find(self, text: str) -> Job:
        return self._only(await self.look(self.book.store.matching, text), text)

    def _only(self, jobs: list[Job], text: str) -> Job:
        """Return the one job that fits; of several of one name, the only one that is not over."""
        if len(jobs) > 1:
            jobs = [job for job in jobs if job.state not in ("done", "failed")] or jobs
        if not jobs:
            raise UnknownJob(f"no job {text}: stokehold queue list shows them all")
        if len(jobs) > 1:
            some = ", ".join(job.id for job in jobs[:5])
            raise AmbiguousJob(f"{text} fits several jobs ({some}): name one by its id")
        return jobs[0]
