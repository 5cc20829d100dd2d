"""One training session: claim, train, save, publish, until it is asked to stop. It decides when; others know how.

It runs in one thread of a training process and never returns early by an error it could answer: a job that fails
raises, the process ends, and the next one resumes from HEAD.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from actors.trainer.checkpoint import Loaded
from actors.trainer.consolidate import NO_ROOM, consolidate
from actors.trainer.data import Payload, PayloadChanged
from actors.trainer.engine import Engine, Learner
from actors.trainer.job import Job, JobSettings
from actors.trainer.keeper import Keeper
from actors.trainer.lineage import Lineage, committed_jobs, told_again
from actors.trainer.port import Consolidate, LetGo, Port, Stop
from actors.trainer.recover import Found, NoRoom, WrongHome, begin, check_stamp, identity_of, rebuild, recover
from actors.trainer.reporter import Reporter
from actors.trainer.torn import AllTorn
from protocol.home import Home
from protocol.messages.queue import Claimed, JobStats
from protocol.messages.trainer import ConsolidationResult
from protocol.records import Cursor, NewerFormat
from supervisor.durable import Disk

CLAIM_WAIT = 30.0
"""Seconds that an idle session waits for a job before it looks around."""
BETWEEN_LOOKS = 0.1
"""Seconds of tokenising between two looks at what is asked."""
LOAD_LIMIT = 3600.0
"""Seconds that loading may take without a sign of life: a hub model is downloaded in it."""


class Session:
    """The life of a training process."""

    def __init__(self, home: Home, disk: Disk, port: Port, engine: Engine) -> None:
        self._home = home
        self._disk = disk
        self._port = port
        self._engine = engine
        self._report = Reporter(port)
        self._keeper = Keeper(home, disk, port, engine.codec, self._report.blocked)
        self._lineage: Lineage | None = None
        self._loaded: Loaded | None = None
        self._learner: Learner | None = None

    def run(self) -> None:
        """Train what there is to train; return when a stop is asked, with all that was trained in a checkpoint."""
        self._engine.prepare(self._port.config())
        self._port.beat("recovering", LOAD_LIMIT)
        try:
            found = recover(self._home, self._disk, self._keeper.store)
            check_stamp(self._home, found, self._port.config())
        except (AllTorn, WrongHome, NewerFormat) as error:
            self._wait_for_people(str(error))
            return
        self._resume(found)
        try:
            self._serve()
            self._save()
        except NoRoom:
            return

    def _serve(self) -> None:
        while not isinstance(wish := self._port.wanted(), Stop):
            if isinstance(wish, Consolidate):
                self._port.consolidated(self._consolidate())
                continue
            reply = self._port.claim(0.0)
            if reply.job is None and reply.none is not None:
                self._rest(reply.none.reason in ("empty", "waited"), reply.none.release_device)
                if self._port.wanted() is None:
                    reply = self._port.claim(CLAIM_WAIT)
            if reply.job is not None:
                self._hold(reply.job)

    def _resume(self, found: Found) -> None:
        """Go on where HEAD is."""
        self._lineage, self._loaded = found.lineage, found.loaded
        self._report.lineage = found.lineage
        if found.lineage is not None:
            ago = (datetime.now(UTC) - found.published.created_at).total_seconds() if found.published else 0.0
            self._keeper.begin(found.lineage, ago)
            for news in found.lineage.disturb(identity_of(self._engine, self._port.config())):
                self._port.warn(news)
            if found.loaded is not None:
                self._tell_again(found.lineage, found.loaded)
        self._report.rest()

    def _tell_again(self, lineage: Lineage, loaded: Loaded) -> None:
        """Tell what the last process may not have had time to tell; of a fall-back only that there was one.

        QueueManager then finds HEAD where it has not heard of it, and believes its ledger in both directions: to be
        told that HEAD is here would keep it from looking.
        """
        for torn in loaded.passed_over:
            name = loaded.manifest.name
            self._port.warn(f"{torn}; it was set aside as .torn-{torn.name}, and training goes on from {name}")
        if loaded.passed_over:
            return
        again = told_again(loaded)
        self._keeper.tell_committed(lineage, again)
        unpublished = set(lineage.unpublished)
        self._keeper.tell_published(lineage, [job.id for job in again if job.id not in unpublished])

    def _wait_for_people(self, why: str) -> None:
        """Training cannot go on and must not begin again: say so until someone acts and restarts."""
        self._report.blocked(why)
        while not isinstance(wish := self._port.wanted(), Stop):
            if isinstance(wish, Consolidate):
                self._port.consolidated(ConsolidationResult("refused", why))
            self._port.beat("blocked", CLAIM_WAIT * 10)
            self._port.wait(CLAIM_WAIT)

    def _rest(self, empty: bool, release_device: bool) -> None:
        """Nothing to do now: make durable what is not; publish if the line is empty; let go of memory if asked."""
        saved = self._save()
        self._report.rest()
        if empty and saved and not isinstance(self._port.wanted(), Stop):
            self._publish_what_is_owed()
        if release_device and self._learner is not None:
            self._learner = None
            self._engine.release()
        self._loaded = None  # read again when there is work: an idle process need not hold it
        self._port.beat("idle", CLAIM_WAIT * 10)

    def _publish_what_is_owed(self) -> None:
        """Publish the state that the newest checkpoint holds, if no version does."""
        if self._lineage is None or not self._lineage.behind:
            return
        learner, lineage = self._load()
        if not isinstance(self._port.wanted(), Stop):  # loading takes long: the next start does it
            self._keeper.publish(lineage, learner, "trained")
        self._report.rest()

    def _save(self) -> bool:
        """Take a checkpoint if it would hold anything new. False: the disk is full and a stop is asked."""
        if self._learner is None or self._lineage is None or not self._lineage.unsaved:
            return True
        self._report.saving(True)
        saved = self._keeper.checkpoint(self._lineage, self._learner)
        self._report.saving(False)
        return saved

    def _load(self) -> tuple[Learner, Lineage]:
        """Return the learner and its lineage: from memory, from HEAD, or new.

        It is not interrupted: a stop asked meanwhile finds a checkpoint, if need be that of step 0.

        Raises:
            NoRoom: a stop is asked and the disk is full.
        """
        if self._learner is not None and self._lineage is not None:
            return self._learner, self._lineage
        self._port.beat("loading", LOAD_LIMIT)
        config = self._port.config()
        if self._lineage is None:
            learner, lineage = begin(self._engine, config, self._keeper)
        else:
            lineage = self._lineage
            if self._loaded is None and lineage.checkpoint is not None:
                self._loaded = self._keeper.store.load(lineage.checkpoint)
            learner = rebuild(self._home, self._engine, config, lineage, self._loaded)
        self._learner, self._lineage, self._loaded = learner, lineage, None
        self._report.lineage, self._report.device = lineage, str(learner.device)
        self._keeper.tell_cost(learner)
        if lineage.checkpoint is None and not self._keeper.checkpoint(lineage, learner):
            raise NoRoom
        return learner, lineage

    def _hold(self, claimed: Claimed) -> None:
        """Train a claimed job to its end, or to where it is asked to let go."""
        if self._lineage is not None and self._is_over(self._lineage, claimed.id):
            return
        if self._learner is None:
            self._report.enter(claimed, "loading")
        learner, lineage = self._load()
        cursor = lineage.cursors.get(claimed.id)
        settings = JobSettings.kept(cursor) if cursor else JobSettings.now(self._port.config())
        encoder = learner.encoder(settings.training)
        try:
            with Payload(Path(claimed.path), encoder) as payload:
                job = self._index(payload, claimed, settings, cursor)
                if job is not None:
                    self._train(job, payload, learner, lineage)
        except PayloadChanged as error:
            self._port.refused(claimed.id, str(error), ())
        self._report.rest()

    def _is_over(self, lineage: Lineage, job: str) -> bool:
        """Answer the claim of a job that was trained before, if its end was not heard."""
        if entries := [entry for entry in lineage.committed if entry.job == job]:
            self._keeper.tell_committed(lineage, committed_jobs(entries))
        elif stats := lineage.stats_of(job):
            self._port.trained(job, stats)
        else:
            return False
        return True

    def _index(self, payload: Payload, claimed: Claimed, settings: JobSettings, cursor: Cursor | None) -> Job | None:
        """Tokenise the payload. None: it is let go, or can never be trained."""
        self._report.enter(claimed, "tokenising")
        look_at = 0.0

        def go_on() -> bool:
            nonlocal look_at
            if (now := time.monotonic()) < look_at:
                return True
            look_at = now + BETWEEN_LOOKS
            self._port.beat("tokenising")
            return self._port.wanted(claimed.id) is None

        if not payload.scan(claimed.sha256, claimed.refused_lines, settings.evaluation.held_out, go_on):
            self._let_go(claimed.id, cursor.stats if cursor else JobStats())
            return None
        index = payload.index
        bad = index.refused - len(claimed.refused_lines)
        if bad and settings.data.on_bad_line == "refuse":
            self._port.refused(
                claimed.id, f"{bad} of {bad + index.held_out + len(index)} rows cannot be trained on", tuple(index.bad)
            )
            return None
        if not len(index) and not index.held_out:
            self._port.refused(claimed.id, "no row of it can be trained on", tuple(index.bad))
            return None
        return Job.begin(claimed, settings, index, cursor)

    def _train(self, job: Job, payload: Payload, learner: Learner, lineage: Lineage) -> None:
        """Make the job's optimizer steps, with checkpoints and versions as they fall due."""
        training, name = job.settings.training, job.claimed.id
        for news in lineage.keep_not(learner.begin_job(training)):
            self._port.warn(news)
        self._report.begin(job)
        self._report.enter(job.claimed, "training")
        while not job.finished:
            if self._port.wanted(name) is not None:
                self._let_go(name, job.stats)
                return
            rows = job.next_rows()
            encoded = [payload.read(row) for row in rows]
            done = learner.step(encoded, lineage.step, training, self._alive)
            lineage.step += 1
            lineage.tokens += done.tokens
            job.advance(len(rows), done)
            lineage.cursors[name] = job.cursor()
            self._report.stepped(done)
            if not job.finished:
                self._keep_up(lineage, learner)
        lineage.finish(job.entry(lineage.step))
        self._port.trained(name, job.stats)
        self._report.rest()
        self._keep_up(lineage, learner)

    def _keep_up(self, lineage: Lineage, learner: Learner) -> None:
        """Save and publish if it is time. Neither changes what the next step does."""
        publish = self._keeper.publication_due(lineage) and not isinstance(self._port.wanted(), Stop)
        if (publish or self._keeper.checkpoint_due(lineage)) and self._save() and publish:
            self._report.saving(True)
            self._keeper.publish(lineage, learner, "trained")
            self._report.saving(False)

    def _let_go(self, job: str, stats: JobStats) -> None:
        """Give the job back, as asked, with all that was trained in a checkpoint."""
        wish = self._port.wanted(job)
        self._save()
        self._port.release(job, wish.why if isinstance(wish, LetGo) else "stop", stats)

    def _consolidate(self) -> ConsolidationResult:
        """Do the night's work on what is trained."""
        if self._lineage is None or self._lineage.step == 0:
            return ConsolidationResult("refused", "nothing was trained yet")
        learner, lineage = self._load()
        if not self._save():
            return ConsolidationResult("refused", NO_ROOM)
        self._port.beat("consolidating", LOAD_LIMIT)
        done = consolidate(self._home, self._disk, self._keeper, self._engine, lineage, learner, self._port.config())
        self._learner, self._lineage, self._report.lineage = done.learner, done.lineage, done.lineage
        self._report.rest()
        return done.result

    def _alive(self) -> None:
        self._port.beat("training")
