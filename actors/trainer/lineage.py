"""Where training stands: the counters, and the ledger of what the weights hold at this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actors.trainer.checkpoint import Loaded
from protocol.messages.queue import CommittedJob, JobStats
from protocol.records import BaseModel, Cursor, Head, Ledger, LedgerEntry, VersionManifest


@dataclass(slots=True)
class Lineage:
    """One line of checkpoints, from its base to now. Kept by the session, made durable by the keeper."""

    id: str
    base: BaseModel
    step: int = 0
    """Optimizer steps since the base."""
    tokens: int = 0
    """Tokens that bore loss, since the base."""
    checkpoint: str | None = None
    """The newest checkpoint: the parent of the next."""
    checkpoint_step: int = 0
    version: int | None = None
    published_step: int = 0
    committed: list[LedgerEntry] = field(default_factory=list)
    awaiting: list[LedgerEntry] = field(default_factory=list)
    """Jobs trained since the newest checkpoint: the next one commits them all."""
    cursors: dict[str, Cursor] = field(default_factory=dict)
    """Of the jobs begun and unfinished, by job id."""
    unpublished: list[str] = field(default_factory=list)
    """Jobs committed since the newest version."""
    disturbances: list[str] = field(default_factory=list)
    identity: dict[str, str] = field(default_factory=dict)

    @classmethod
    def born(cls, head: Head, base: VersionManifest) -> Lineage:
        """Return HEAD's line before its first checkpoint. ``base``: the version that HEAD names."""
        return cls(id=head.lineage, base=base.base, version=base.version, identity=dict(base.identity))

    @classmethod
    def resumed(cls, loaded: Loaded, published: VersionManifest | None) -> Lineage:
        """Return the line as a checkpoint left it. ``published``: the version that HEAD names, if it can be read.

        One that is ahead, since training fell back behind it, holds other steps than those to come.
        """
        manifest, ledger = loaded.manifest, loaded.ledger
        ahead = published is not None and published.step > manifest.step
        shown = {entry.job for entry in published.ledger.committed} if published else set()
        return cls(
            id=manifest.lineage,
            base=manifest.base,
            step=manifest.step,
            tokens=manifest.tokens,
            checkpoint=manifest.name,
            checkpoint_step=manifest.step,
            version=published.version if published else None,
            published_step=0 if published is None or ahead else published.step,
            committed=list(ledger.committed),
            cursors={cursor.job: cursor for cursor in ledger.cursors},
            unpublished=[entry.job for entry in ledger.committed if entry.job not in shown],
            disturbances=list(ledger.disturbances),
            identity=dict(manifest.identity),
        )

    @property
    def behind(self) -> int:
        """Optimizer steps trained and not yet published."""
        return max(0, self.step - self.published_step)

    @property
    def unsaved(self) -> bool:
        """Whether the next checkpoint would hold anything that the newest does not."""
        return self.checkpoint is None or self.step != self.checkpoint_step or bool(self.awaiting)

    def ledger(self) -> Ledger:
        """Return the ledger that a checkpoint taken now must carry."""
        return Ledger((*self.committed, *self.awaiting), tuple(self.cursors.values()), tuple(self.disturbances))

    def stats_of(self, job: str) -> JobStats | None:
        """Return what a job has done that is trained and awaits its checkpoint, or None if it does not."""
        return next((entry.stats for entry in self.awaiting if entry.job == job), None)

    def finish(self, entry: LedgerEntry) -> None:
        """Note that all rows of a job are consumed."""
        self.cursors.pop(entry.job, None)
        self.awaiting.append(entry)

    def keep_not(self, unkept: Sequence[str]) -> list[str]:
        """Note, once, which settings are not kept to; return what is new of it."""
        return self._note([one for one in unkept if not any(known.endswith(one) for known in self.disturbances)])

    def disturb(self, identity: Mapping[str, str]) -> list[str]:
        """Note what is another than in the run that made the newest checkpoint: counts still hold, bits may not.

        Return it.
        """
        before, self.identity = self.identity, dict(identity)
        known = sorted(before.keys() & identity.keys())
        return self._note(
            [f"{key} was {before[key]} and is {identity[key]}" for key in known if before[key] != identity[key]]
        )

    def _note(self, what: Sequence[str]) -> list[str]:
        found = [f"step {self.step}: {one}" for one in what]
        self.disturbances += found
        return found


def committed_jobs(entries: list[LedgerEntry]) -> list[CommittedJob]:
    """Return ledger entries in the words of QueueManager."""
    return [CommittedJob(entry.job, entry.stats) for entry in entries]


def told_again(loaded: Loaded) -> list[CommittedJob]:
    """Return the jobs that a checkpoint committed itself: its maker may have died before it could tell."""
    names = set(loaded.state.get("committing", ()))
    return committed_jobs([entry for entry in loaded.ledger.committed if entry.job in names])
