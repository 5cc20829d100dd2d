"""The session of EchoTrainer: the same conversation with the daemon as the real one, about a model that is none.

A step takes :data:`ROWS` rows and as many seconds as the file ``HOME/run/echo-step`` says, read anew before each step;
:data:`STEP_SECONDS` without it. A row that holds ``echo crash`` raises :class:`EchoCrash` in the step that takes it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from actors.testing.echo_keeper import EchoKeeper, NoRoom
from actors.testing.echo_weights import EchoEncoder
from actors.trainer.data import Payload, PayloadChanged, row_order
from actors.trainer.masks import Encoded
from actors.trainer.port import Consolidate, LetGo, Port, Stop
from actors.trainer.torn import AllTorn
from protocol.home import Home
from protocol.messages.common import Phase
from protocol.messages.queue import Claimed, JobStats
from protocol.messages.trainer import ConsolidationResult, Progress
from protocol.records import Cursor, LedgerEntry
from supervisor.durable import Disk

ROWS = 4
STEP_SECONDS = 0.01
CLAIM_WAIT = 30.0
CRASH = b"echo crash"


class EchoCrash(Exception):
    """A row asked for it."""


@dataclass(slots=True)
class EchoJob:
    """A claimed job and how far it has come."""

    claimed: Claimed
    cursor: Cursor

    @property
    def finished(self) -> bool:
        return self.cursor.epoch >= self.cursor.epochs

    @property
    def steps_total(self) -> int:
        return -(-self.cursor.rows // ROWS) * self.cursor.epochs

    def entry(self, step: int) -> LedgerEntry:
        at = self.cursor
        return LedgerEntry(at.job, at.file, at.sha256, at.epochs, at.rows, at.stats, step)


class EchoSession:
    """The life of an Echo training process, in one thread."""

    def __init__(self, home: Home, disk: Disk, port: Port) -> None:
        self._control = home.run / "echo-step"
        self._port = port
        self._job: EchoJob | None = None
        self._phase: Phase | None = None
        self._keeper = EchoKeeper(home, disk, port, self._tell)

    def run(self) -> None:
        """Train what there is to train; return when a stop is asked, with all that was trained in a checkpoint."""
        try:
            self._keeper.recover()
            self._tell()
            self._serve()
            self._keeper.save("stop")
        except AllTorn as error:
            self._wait_for_people(str(error))
        except NoRoom:
            return

    def _serve(self) -> None:
        while not isinstance(wish := self._port.wanted(), Stop):
            if isinstance(wish, Consolidate):
                self._port.consolidated(self._consolidate())
                continue
            reply = self._port.claim(0.0)
            if reply.job is None and reply.none is not None:
                self._rest(empty=reply.none.reason in ("empty", "waited"))
                if self._port.wanted() is None:
                    reply = self._port.claim(CLAIM_WAIT)
            if reply.job is not None:
                self._hold(reply.job)
                self._job = self._phase = None
                self._tell()

    def _wait_for_people(self, why: str) -> None:
        while not isinstance(wish := self._port.wanted(), Stop):
            if isinstance(wish, Consolidate):
                self._port.consolidated(ConsolidationResult("refused", why))
            self._tell(why)
            self._port.wait(CLAIM_WAIT)

    def _rest(self, empty: bool) -> None:
        self._keeper.save("save")
        if empty and self._keeper.lineage.behind:
            self._keeper.publish("trained")
        self._tell()

    def _consolidate(self) -> ConsolidationResult:
        self._keeper.save("save")
        if not self._keeper.lineage.behind:
            return ConsolidationResult("refused", "nothing was trained since the last version")
        self._keeper.publish("snapshot")
        return ConsolidationResult("promoted", "a snapshot", self._keeper.lineage.version)

    def _hold(self, claimed: Claimed) -> None:
        lineage = self._keeper.lineage
        if over := [entry for entry in lineage.committed if entry.job == claimed.id]:
            self._keeper.tell_committed(over)
            return
        if (stats := lineage.stats_of(claimed.id)) is not None:
            self._port.trained(claimed.id, stats)
            return
        try:
            with Payload(Path(claimed.path), EchoEncoder()) as payload:
                if self._index(claimed, payload):
                    self._train(payload)
        except PayloadChanged as error:
            self._port.refused(claimed.id, str(error), ())

    def _index(self, claimed: Claimed, payload: Payload) -> bool:
        """Read the payload. False: it is let go, or can never be trained."""
        at = self._keeper.lineage.cursors.get(claimed.id)
        self._enter("tokenising", claimed.id)
        if not payload.scan(claimed.sha256, claimed.refused_lines, 0.0, lambda: self._port.wanted(claimed.id) is None):
            self._let_go(claimed.id, at.stats if at else JobStats())
            return False
        training, rows = self._port.config().training, len(payload.index)
        if not rows:
            self._port.refused(claimed.id, "no row of it can be trained on", tuple(payload.index.bad))
            return False
        if at is None:
            stats = JobStats(refused=payload.index.refused)
            at = Cursor(
                claimed.id, claimed.file, claimed.sha256, 0, 0, training.epochs, rows, training.seed, stats, {}
            )  # fmt: skip
        self._job = EchoJob(claimed, at)
        return True

    def _train(self, payload: Payload) -> None:
        job, lineage = self._job, self._keeper.lineage
        assert job is not None
        name = job.claimed.id
        self._enter("training", name)
        while not job.finished:
            if self._port.wanted(name) is not None:
                self._let_go(name, job.cursor.stats)
                return
            self._step(job, payload)
            lineage.cursors[name] = job.cursor
            self._tell()
            if not job.finished:
                self._keeper.keep_up()
        lineage.finish(job.entry(lineage.step))
        self._port.trained(name, job.cursor.stats)
        self._keeper.keep_up()

    def _step(self, job: EchoJob, payload: Payload) -> None:
        at, lineage = job.cursor, self._keeper.lineage
        order = row_order(at.rows, at.seed, at.epoch, at.sha256, shuffle=True)
        rows = [payload.read(row) for row in order[at.position : at.position + ROWS]]
        self._sleep(at.job)
        _crash_if_asked(rows)
        loss = self._keeper.weights.step(rows)
        tokens = sum(row.targets for row in rows)
        lineage.step += 1
        lineage.tokens += tokens
        over = at.position + len(rows) >= at.rows
        job.cursor = msgspec.structs.replace(
            at,
            epoch=at.epoch + over,
            position=0 if over else at.position + len(rows),
            stats=_more(at.stats, len(rows), tokens, loss),
        )

    def _sleep(self, job: str) -> None:
        """Take as long as the control file says, but end early when something is asked of the job."""
        until = time.monotonic() + (float(self._control.read_text()) if self._control.exists() else STEP_SECONDS)
        while (left := until - time.monotonic()) > 0 and self._port.wanted(job) is None:
            self._port.wait(min(left, 0.05))

    def _let_go(self, job: str, stats: JobStats) -> None:
        wish = self._port.wanted(job)
        self._enter("saving", job)
        self._keeper.save("stop" if isinstance(wish, Stop) else "save")
        self._port.release(job, wish.why if isinstance(wish, LetGo) else "stop", stats)

    def _enter(self, phase: Phase, job: str) -> None:
        self._phase = phase
        self._port.beat(phase)
        self._port.phase(job, phase)
        self._tell()

    def _tell(self, blocked: str | None = None) -> None:
        job, lineage = self._job, self._keeper.lineage
        stats = job.cursor.stats if job else JobStats()
        self._port.progress(
            Progress(
                id=job.claimed.id if job else None,
                file=job.claimed.file if job else None,
                priority=job.claimed.priority if job else None,
                attempt=job.claimed.attempt if job else 0,
                phase=self._phase if job else None,
                step=stats.steps,
                steps_total=job.steps_total if job else 0,
                samples_done=stats.samples,
                samples_total=job.cursor.rows * job.cursor.epochs if job else 0,
                tokens=stats.tokens,
                loss=stats.last_loss,
                tokens_per_s=None,
                eta_s=None,
                global_step=lineage.step,
                version=lineage.version,
                behind_steps=lineage.behind,
                device="echo",
                blocked=blocked,
            )
        )


def _crash_if_asked(rows: list[Encoded]) -> None:
    for row in rows:
        if CRASH in bytes(row.ids):
            raise EchoCrash(bytes(row.ids).decode())


def _more(stats: JobStats, rows: int, tokens: int, loss: float) -> JobStats:
    return msgspec.structs.replace(
        stats,
        samples=stats.samples + rows,
        tokens=stats.tokens + tokens,
        steps=stats.steps + 1,
        first_loss=loss if stats.first_loss is None else stats.first_loss,
        last_loss=loss,
    )
