"""Every change that a job can undergo once it is in the queue.

Each leaves rows and payloads so that a process that dies in the middle loses nothing: see :mod:`actors.queue.shelf`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from actors.queue import attempts
from actors.queue.attempts import Tally, Verdict
from actors.queue.folders import ErrorReport, fitting
from actors.queue.job import Job, Place, Stamp
from actors.queue.shelf import Shelf
from protocol.ids import new_id
from protocol.inbox_names import submitted_name
from protocol.messages.common import BadLine, Priority
from protocol.messages.queue import HistoryEntry, JobStats


class Book(Shelf):
    """The jobs of one home, from their line to their end."""

    # ------------------------------------------------------------ the walk of a job

    def claim(self, *, nothing_new: bool = False) -> Job | None:
        """Take the next job into ``processing/``: what was begun first, then the lines. None: nothing waits.

        With ``nothing_new``, only what lies in ``processing/`` already, because its trainer died or let go of it. A
        payload that somebody deleted cancels its job; one that somebody changed is validated again. In
        ``processing/``, which is the daemon's, either fails the job.
        """
        while (job := self.next(nothing_new=nothing_new)) is not None:
            path = self.path(job)
            stamp = self.folders.stamp(path)
            try:
                same = stamp is not None and (stamp == job.stamp or self.folders.sha256(path) == job.sha256)
            except FileNotFoundError:
                continue  # deleted in this very moment
            except OSError as error:
                self.park(job, f"its file cannot be read: {error.strerror}")
                continue
            if stamp is not None and same:
                if (begun := self._begin(job, stamp)) is not None:
                    return begun
            elif job.state == "processing":
                what = "gone" if stamp is None else "changed"
                self.park(job, f"its file was {what} in processing/, where only the daemon may touch it")
            elif stamp is None:
                self.end(job, "its file was deleted by hand")
            else:
                self.check_again(job, "its file was changed while it waited")
        return None

    def _begin(self, job: Job, stamp: Stamp) -> Job | None:
        begun = msgspec.structs.replace(
            job,
            state="processing",
            stamp=stamp,
            rank=self.store.next_rank() if job.rank is None else job.rank,
            started_at=job.started_at or self.now(),
        )
        if job.state != "processing":
            begun = self.send(begun, "processing", "claimed")
            if self.folders.stamp(self.path(begun)) is None:
                self.end(begun, "its file was deleted by hand")  # in this very moment
                return None
            return begun
        if begun != job:
            self.save(begun)
        self.tell("claimed", begun)
        return begun

    def next(self, *, nothing_new: bool = False) -> Job | None:
        """Return the job that :meth:`claim` would take."""
        begun = self.store.begun()
        if nothing_new:
            return next((job for job in begun if job.state == "processing"), None)
        return begun[0] if begun else self.store.first_in_line()

    def leave_loading(self, job: Job, boot: str) -> Job:
        """Remember that the job runs: a daemon that vanishes from now on may do so because of it."""
        if job.tally.live_boot == boot:
            return job
        return self.save(msgspec.structs.replace(job, tally=attempts.running(job.tally, boot)))

    def blame_nobody(self) -> None:
        """An end was asked for, and may come at any moment: no job is to be suspected of it."""
        with self.store.transaction():
            for job in self.store.in_state("processing"):
                self.store.put(msgspec.structs.replace(job, tally=attempts.rested(job.tally)))

    def trained(self, job: Job, stats: JobStats) -> Job:
        """All rows are consumed: the job awaits its checkpoint."""
        after = self.save(msgspec.structs.replace(job, state="trained", stats=stats, tally=attempts.rested(job.tally)))
        self.tell("trained", after)
        return after

    def committed(self, jobs: Iterable[tuple[Job, JobStats]], cursors: dict[str, int]) -> None:
        """HEAD's ledger holds these jobs, and the unfinished ones at these cursors: one commit, then the renames."""
        now = self.now()
        moves: list[tuple[Job, Path]] = []
        reserved: set[tuple[Place, str]] = set()
        with self.store.transaction():
            for job, stats in jobs:
                done = msgspec.structs.replace(
                    job, state="done", stats=stats, finished_at=now, last_error=None, tally=attempts.rested(job.tally)
                )
                done = self.headed(done, "done", reserved)
                self.store.put(done)
                self.store.add_history(done.ended("trained", now))
                moves.append((done, self.path(job)))
            self._advance(cursors)
        for done, _ in moves:
            self.tell("committed", done, entry=done.ended("trained", now))
        for done in self.carry_all(moves):
            if self.folders.stamp(self.path(done)) is None:
                self.forget(done)  # its file was deleted by hand between training and checkpoint

    def uncommitted(self, job: Job) -> None:
        """No ledger holds this job any more, although it was done: to be trained again, in its place in the order."""
        again = msgspec.structs.replace(job, finished_at=None, interruptions=job.interruptions + 1)
        with self.store.transaction():
            self.store.withdraw_trained(job.id)
        if self.folders.stamp(self.path(job)) is None:
            self.park(again, "a checkpoint was lost that held it, and its file is no longer in done/ to train it again")
            return
        again = msgspec.structs.replace(again, state="queued")
        self.send(again, job.priority, "uncommitted", "a checkpoint was lost that held it")

    def progress(self, cursors: dict[str, int]) -> None:
        """The newest valid checkpoint holds exactly these unfinished jobs, at these cursors; all others at none."""
        with self.store.transaction():
            self._advance(cursors)
            for job in self.store.with_progress():
                if job.id not in cursors:
                    self.store.put(msgspec.structs.replace(job, tally=attempts.progressed(job.tally, 0)))

    def _advance(self, cursors: dict[str, int]) -> None:
        for job_id, cursor in cursors.items():
            job = self.store.get(job_id)
            if job is not None and job.tally.progress != cursor:
                self.store.put(msgspec.structs.replace(job, tally=attempts.progressed(job.tally, cursor)))

    # ------------------------------------------------------------ leaving processing/ without an end

    def rest(self, job: Job, stats: JobStats | None = None) -> Job:
        """Let go of the job in place: it is handed out again first."""
        return self.save(self._interrupted(job, stats))

    def untrained(self, job: Job) -> Job:
        """A job awaited its checkpoint, and the process that held it in memory is gone: it is to be trained again."""
        return self.save(msgspec.structs.replace(self._interrupted(job, None), state="processing"))

    def back_to_line(self, job: Job, stats: JobStats | None = None, why: str = "") -> Job:
        """Send the payload back to its line, ahead of it: the job keeps its rank."""
        after = msgspec.structs.replace(self._interrupted(job, stats), state="queued")
        return self.send(after, job.priority, "requeued", why)

    def back_to_low(self, job: Job, kind: str, why: str = "", stats: JobStats | None = None) -> Job:
        """Send the job to the end of ``low``; its progress stays in the checkpoint."""
        after = msgspec.structs.replace(
            self._interrupted(job, stats), state="queued", priority="low", rank=None, seq=self.store.next_seq()
        )
        return self.send(after, "low", kind, why)

    def _interrupted(self, job: Job, stats: JobStats | None) -> Job:
        return msgspec.structs.replace(
            job,
            stats=job.stats if stats is None else stats,
            interruptions=job.interruptions + 1,
            tally=attempts.rested(job.tally),
        )

    def failed(
        self, job: Job, outcome: tuple[Tally, Verdict], reason: str, traceback: str | None, *, skipped: bool = False
    ) -> Verdict:
        """Do what a failure costs: again in place, to the end of ``low``, or to ``failed/``.

        One that was to be skipped when it failed goes to the end of ``low`` rather than on in place.
        """
        tally, verdict = outcome
        after = msgspec.structs.replace(job, tally=tally, last_error=reason)
        if verdict == "park":
            self.park(after, reason, traceback=traceback)
        elif verdict == "back" or skipped:
            self.back_to_low(after, "attempt_failed" if verdict == "back" else "skipped", reason)
        else:
            self.tell("interrupted", self.rest(after), reason)
        return verdict

    def with_tally(self, job: Job, tally: Tally) -> Job:
        """Note a count, and nothing else."""
        return job if tally == job.tally else self.save(msgspec.structs.replace(job, tally=tally))

    # ------------------------------------------------------------ ends

    def park(
        self,
        job: Job,
        reason: str,
        lines: Iterable[BadLine] = (),
        traceback: str | None = None,
        source: Path | None = None,
    ) -> Job:
        """Give the job up: report first, then row and history, then the payload (which may be gone).

        ``source`` says where the payload lies if the row does not.
        """
        now = self.now()
        numbered = list(lines)
        said = "; ".join([reason, *(f"line {bad.line}: {bad.reason}" for bad in numbered[:3])])
        after = msgspec.structs.replace(
            job, state="failed", rank=None, last_error=said, finished_at=now, tally=attempts.rested(job.tally)
        )
        after = self.headed(after, "failed")
        source = self.path(job) if source is None else source
        after = msgspec.structs.replace(after, origin=self.folders.relative(source))
        held = min(job.tally.progress, job.samples)
        report = ErrorReport(
            id=job.id,
            file=job.file,
            reason=f"{said}; {held} of its samples were trained and stay in the weights" if held else said,
            attempts=job.tally.attempts,
            lines=[bad.line for bad in numbered],
            traceback=traceback,
        )
        self.folders.write_report(after.name, report)
        entry = after.ended("failed", now)
        try:
            with self.store.transaction():
                self.store.put(after)
                self.store.add_history(entry)
        except (OSError, sqlite3.Error):
            self.folders.disk.unlink(self.folders.report_path(after.name))
            raise
        self.tell("failed", after, said, entry)
        return self.carry(after, source)

    def end(self, job: Job, why: str, stats: JobStats | None = None) -> HistoryEntry:
        """Cancel the job: what was trained stays trained, and its payload is deleted."""
        after = msgspec.structs.replace(job, state="cancelled", stats=job.stats if stats is None else stats)
        entry = after.ended("cancelled", self.now())
        with self.store.transaction():
            self.store.put(after)
            self.store.add_history(entry)
        self.tell("cancelled", after, why, entry)
        self.bury(after)
        return entry

    def bury(self, job: Job) -> None:
        """Delete the payload of a job that is over, then its row. What somebody put in its place is not ours."""
        if self.folders.stamp(self.path(job)) is not None:
            self.folders.disk.unlink(self.path(job), missing_ok=True)
        self.forget(job)

    # ------------------------------------------------------------ as people wish

    def move(self, job: Job, priority: Priority) -> Job:
        """Put a waiting job at the end of a line."""
        after = msgspec.structs.replace(job, priority=priority, seq=self.store.next_seq(), rank=None)
        if job.place != priority:
            return self.send(after, priority, "moved", priority)
        self.tell("moved", self.save(after), priority)
        return after

    def moved_by_hand(self, job: Job, place: Place, name: str) -> Job:
        """The payload was found in another line, or taken back from ``failed/``: it waits at the end of that line.

        One that only got another name in its line keeps its place there.
        """
        priority: Priority = place if place in ("high", "low") else "normal"
        after = msgspec.structs.replace(job, state="queued", priority=priority, place=place, name=name)
        if place != job.place:
            after = msgspec.structs.replace(after, seq=self.store.next_seq(), rank=None)
        if job.state == "failed":
            after = msgspec.structs.replace(after, tally=attempts.forgiven(job.tally), finished_at=None)
        self.tell("moved", self.save(after), "by hand")
        if job.state == "failed":
            self.folders.disk.unlink(self.folders.report_path(job.name), missing_ok=True)
        return after

    def retry(self, job: Job) -> Job:
        """Queue a failed job again: its attempts are forgiven, its progress is kept."""
        forgiven = msgspec.structs.replace(
            job, state="queued", seq=self.store.next_seq(), tally=attempts.forgiven(job.tally), finished_at=None
        )
        # What never passed validation is to be looked at anew.
        after = self.send(forgiven, job.priority, "retried") if job.samples else self.check_again(forgiven, "retried")
        self.folders.disk.unlink(self.folders.report_path(job.name), missing_ok=True)
        return after

    def check_again(self, job: Job, why: str) -> Job:
        """Send a payload of unknown content through the inbox, where files are validated.

        Its row keeps its place in the line meanwhile. A job that had begun ends here, and a new one takes over the
        file.
        """
        source = self.path(job)
        after = msgspec.structs.replace(
            job,
            state="checking",
            place="inbox",
            origin=self.folders.relative(source),
            stamp=self.folders.stamp(source) or job.stamp,
            sha256="",
            samples=0,
            refused=(),
            rank=None,
        )
        entry = None
        if job.rank is not None or job.tally.progress > 0:
            now = self.now()
            entry = job.ended("cancelled", now)
            after = msgspec.structs.replace(
                after,
                id=new_id(now),
                submitted_at=now,
                seq=self.store.next_seq(),
                stats=JobStats(),
                tally=Tally(),
                started_at=None,
                interruptions=0,
            )
        after = msgspec.structs.replace(after, name=submitted_name(fitting(after.file), after.id, after.priority))
        with self.store.transaction():
            if entry is not None:
                self.store.forget(job.id)
                self.store.add_history(entry)
            self.store.put(after)
        if entry is not None:
            self.tell("cancelled", job, why, entry)
        self.tell("rechecked", after, why)
        return self.carry(after, source)
