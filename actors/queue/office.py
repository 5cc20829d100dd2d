"""What the desks of QueueManager share: the book, the gate, what the trainer holds, and how the world is told.

SQLite and the folders are touched in a worker thread, one piece of work at a time, so that neither a slow fsync nor a
million rows stall the event loop. An actor handles one message at a time, so nobody else sees a half-done change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ClassVar, ParamSpec, TypeVar

import anyio
import msgspec
from anyio import to_thread

from actors.board import Board, Held
from actors.queue.book import Book
from actors.queue.gate import Gate
from actors.queue.intake import accepted
from actors.queue.job import Job
from actors.queue.shelf import News
from actors.queue.unwritable import Unwritable, why_unwritable
from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import Done, Message, Phase, Trouble
from protocol.messages.queue import Accepted, Claimed, ClaimReply, HistoryEntry, NoWork
from protocol.messages.trainer import GateOpened
from supervisor import Actor, Disk, Mailbox, MailboxFull, Refused, Reply, Timer

NAME = "QueueManager"
TRAINER = "TrainerActor"

RETRY = 1.0
"""Seconds between two tries to write, while the disk is full or the like."""

P = ParamSpec("P")
T = TypeVar("T")


class UnknownJob(Refused):
    """No job has this id, beginning of an id, or file name."""

    code = "unknown_job"


class AmbiguousJob(Refused):
    """Several jobs fit."""

    code = "ambiguous_job"


class WrongState(Refused):
    """The job is not in a state in which this can be done."""

    code = "wrong_state"


class NothingToSkip(Refused):
    """No file is in training."""

    code = "nothing_to_skip"


class BetweenFiles(Message, frozen=True):
    """What was begun is finished, or may be: somebody may want to do something before the next file."""


class TryAgain(Message, frozen=True):
    """It could not be written; perhaps it can be now."""


class Office(Actor):
    """The state that more than one desk needs, and the ways to the world. The desks derive from it.

    There is one desk for each kind of visitor; what only one of them needs is its own.
    """

    mailbox: ClassVar[Mailbox] = Mailbox(bound=4096, overflow="wait")

    def __init__(self, home: Home, store: ConfigStore, disk: Disk, board: Board) -> None:
        self.home = home
        self.settings = store
        self.disk = disk
        self.board = board
        self.book: Book
        self.gate: Gate
        self.phase: Phase = "loading"
        """Of the job that the trainer holds."""
        self.claim: Reply[ClaimReply] | None = None
        """The claim that waits for work."""
        self.claim_timer: Timer | None = None
        self.pausing: list[Reply[Done]] = []
        self.skipping: list[Reply[Done]] = []
        self.cancelling: list[Reply[Done]] = []
        """Who waits for the trainer to let go of the job that it holds, and for what."""
        self.accepting: dict[str, list[Reply[Accepted]]] = {}
        self.finishing: dict[str, list[Reply[HistoryEntry]]] = {}
        """Who waits for news of a job, by its id."""
        self._thread = anyio.CapacityLimiter(1)

    # ------------------------------------------------------------ work

    async def do(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a piece of work on rows and folders, after the moves that are owed; then tell the world what came of it.

        Raises:
            Unwritable: the disk is full or the like. What rows announce by now is done as soon as it can be.
        """
        try:
            result = await self.look(self._in_order, partial(function, *args, **kwargs))
        finally:
            self.announce()
        return result

    async def look(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a question that changes nothing.

        Raises:
            Unwritable: it cannot even be asked.
        """
        try:
            return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._thread)
        except (OSError, sqlite3.Error) as error:
            why = why_unwritable(error)
            if why is None:
                raise
            self._cannot_write(why)
            raise Unwritable(why) from error

    def _in_order(self, work: Callable[[], T]) -> T:
        self.book.pay()
        return work()

    def _cannot_write(self, why: str) -> None:
        """Shut the gate, say why, and try again in a while."""
        if self.gate.view.storage is None:
            self.context.after(RETRY, TryAgain())
        self.gate.storage(why)
        self.board.troubles[NAME] = Trouble(why, "mend that, and it goes on by itself; stokehold doctor")
        self.announce()

    # ------------------------------------------------------------ what the trainer holds

    @property
    def held(self) -> Held | None:
        """The job that the trainer claimed and has not let go of. Kept on the board, which outlives this actor."""
        return self.board.held

    def hold(self, job: str) -> None:
        """The trainer that runs now has this job."""
        self.board.held = Held(job, self.context.ref(TRAINER).cell.incarnation)
        self.phase = "loading"

    def let_go(self) -> None:
        """Nobody holds anything; those who waited for no more than that are answered."""
        self.board.held = None
        answer(self.pausing, Done())

    async def held_job(self) -> Job | None:
        """Return the row of the job that the trainer holds."""
        return None if self.held is None else await self.look(self.book.store.get, self.held.job)

    async def offer(self) -> None:
        """If a job may be handed out, answer the claim that waits; if none waits, wake the trainer."""
        if self.held is not None or self.gate.closed() is not None:
            return
        with suppress(Unwritable):  # then it is offered when it can be written
            if await self.look(self.book.next, nothing_new=self.gate.nothing_new() is not None) is None:
                return
            if self.claim is None or self.claim.done:
                self.tell_trainer(GateOpened())
            else:
                await self.take_out()

    async def take_out(self) -> NoWork | None:
        """Hand the next job to the claim that waits; return why there is none."""
        if (shut := self.gate.closed()) is not None:
            return shut
        held_back = self.gate.nothing_new()
        job = await self.do(self.book.claim, nothing_new=held_back is not None)
        if job is None:
            if self.gate.view.lease_wanted:
                self.context.after(0, BetweenFiles())
            return held_back or NoWork(reason="empty")
        self.hand_out(job)
        return None

    def hand_out(self, job: Job) -> None:
        """Answer the waiting claim with a job. If the trainer is gone meanwhile, the next one is handed it first."""
        claim = self.end_claim()
        if claim is not None and not claim.done:
            self.hold(job.id)
            claim.send(ClaimReply(job=self.claimed(job)))
        self.announce()

    def turn_away(self, none: NoWork) -> None:
        """Answer the waiting claim with no job."""
        claim = self.end_claim()
        if claim is not None:
            claim.send(ClaimReply(none=none))

    def end_claim(self) -> Reply[ClaimReply] | None:
        """Return the waiting claim, which waits no more."""
        claim, self.claim = self.claim, None
        if self.claim_timer is not None:
            self.claim_timer.cancel()
            self.claim_timer = None
        return claim

    def claimed(self, job: Job) -> Claimed:
        """Return what the trainer is told of a job."""
        return Claimed(
            id=job.id,
            file=job.file,
            path=str(self.book.path(job)),
            sha256=job.sha256,
            priority=job.priority,
            attempt=job.tally.attempts + 1,
            refused_lines=job.refused,
        )

    def tell_trainer(self, message: Message) -> None:
        """Cast to the trainer. A full mailbox means that it has enough to read: it claims again by itself."""
        with suppress(MailboxFull):
            self.context.ref(TRAINER).cast(message)

    # ------------------------------------------------------------ what the world is told

    def announce(self) -> None:
        """Put the newest snapshot on the board, publish the news, answer those who waited for them."""
        self.board.queue = self.book.store.counts()
        if self.board.gate != self.gate.view:
            self.board.gate = self.gate.view
            self.context.publish("state", {"event": "gate", **msgspec.structs.asdict(self.gate.view)})
        news, self.book.news = self.book.news, []
        for item in news:
            self._publish(item)

    def _publish(self, item: News) -> None:
        job = item.job
        event = {"event": item.kind, "id": job.id, "file": job.file, "priority": job.priority}
        self.context.publish("queue", event | ({"reason": item.text} if item.text else {}))
        if item.kind in ("accepted", "failed"):
            answer(self.accepting.pop(job.id, []), accepted(job))
        if item.entry is not None:
            answer(self.finishing.pop(item.entry.id, []), item.entry)


R = TypeVar("R")


def enlist(waiting: dict[str, list[Reply[R]]], key: str, reply: Reply[R]) -> None:
    """Add somebody who waits for what this key names, and forget all who have given up waiting."""
    for other in [other for other, replies in waiting.items() if all(one.done for one in replies)]:
        del waiting[other]
    waiting.setdefault(key, []).append(reply)


def answer(waiting: list[Reply[R]], value: R) -> None:
    """Give all who wait what they waited for."""
    for reply in waiting:
        reply.send(value)
    waiting.clear()


def refuse(waiting: list[Reply[R]], error: Refused) -> None:
    """Tell all who wait that it will not happen."""
    for reply in waiting:
        reply.fail(error)
    waiting.clear()
