"""A small tree around a real QueueManager: a trainer that does what the test says, and a watcher of an inbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import msgspec

from actors.board import Board
from actors.consolidator.consolidator import Consolidator
from actors.queue.manager import QueueManager
from actors.settings_store import ConfigStore
from actors.status import node
from protocol.config import Config, InboxSection, QueueSection
from protocol.home import Home
from protocol.messages.common import Message, Priority
from protocol.messages.inbox import QuietScan
from protocol.messages.queue import (
    Accepted,
    Claim,
    Claimed,
    Committed,
    CommittedJob,
    JobPhase,
    NoWork,
    QuietReport,
    Trained,
)
from protocol.messages.trainer import ConfigChanged, ConsolidationResult, GateOpened, RunConsolidation, Yield
from protocol.records import Cursor, LedgerEntry
from supervisor import (
    Actor,
    ChildSpec,
    Clock,
    CoolDown,
    Disk,
    Ref,
    Reply,
    SupervisorSpec,
    Tree,
    on,
    on_deferred,
    open_tree,
)
from supervisor.testing import EventLog, VirtualClock, eventually
from tests.actors.queue.homes import ROW, accept_message, put, stats, write_checkpoint

CONFIG = Config(queue=QueueSection(keep_done=7 * 86400), inbox=InboxSection(rescan=3600))


class FakeTrainer(Actor):
    """Hears what QueueManager says. The test itself claims and answers in its name."""

    def __init__(self, hall: Hall) -> None:
        self._heard = hall.heard
        self._hall = hall

    async def on_start(self) -> None:
        if self._hall.start_fails is not None:
            raise self._hall.start_fails

    @on(Yield)
    async def _(self, message: Yield) -> None:
        self._heard.append(message)

    @on(GateOpened)
    async def _(self, message: GateOpened) -> None:
        self._heard.append(message)

    @on_deferred(RunConsolidation)
    async def _(self, message: RunConsolidation, reply: Reply[ConsolidationResult]) -> None:
        self._hall.nights.append(reply)
        if self._hall.night_ends is not None:
            reply.send(self._hall.night_ends)


class FakeWatcher(Actor):
    """Says what the test wants it to have seen in the inbox; says nothing while ``quiet`` is None."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    @on(QuietScan)
    async def _(self, message: QuietScan) -> None:
        self._hall.scans.append(message.request)
        if self._hall.quiet is not None:
            self.context.ref("QueueManager").cast(QuietReport(message.request, self._hall.quiet))


@dataclass
class Hall:
    home: Home
    board: Board = field(default_factory=Board)
    heard: list[Message] = field(default_factory=list)
    quiet: bool | None = True
    nights: list[Reply[ConsolidationResult]] = field(default_factory=list)
    """Each consolidation that was asked for."""
    night_ends: ConsolidationResult | None = None
    """How a consolidation ends at once; None: the test answers."""
    start_fails: Exception | None = None
    """Why no trainer can be started."""
    scans: list[int] = field(default_factory=list)
    committed: list[LedgerEntry] = field(default_factory=list)
    step: int = 0
    store: ConfigStore = field(default_factory=lambda: ConfigStore(CONFIG))
    told: Committed = field(init=False)
    tree: Tree = field(init=False)
    events: EventLog = field(init=False)

    @property
    def queue(self) -> Ref:
        return self.tree.ref("QueueManager")

    async def accept(self, name: str, text: str = ROW, priority: Priority = "normal") -> Accepted:
        path = put(self.home, name, text + f'{{"text": "{name}"}}\n')
        return await self.queue.call(accept_message(path, priority=priority))

    async def claim(self) -> Claimed:
        reply = await self.queue.call(Claim())
        assert reply.job is not None, reply
        return reply.job

    async def no_claim(self) -> NoWork:
        reply = await self.queue.call(Claim())
        assert reply.none is not None, reply
        return reply.none

    async def begin(self) -> Claimed:
        """Claim a job and bring it out of ``loading``."""
        job = await self.claim()
        self.queue.cast(JobPhase(job.id, "training"))
        return job

    async def commit(self, *jobs: Claimed, cursors: dict[str, int] | None = None) -> None:
        """Write a checkpoint whose ledger holds these jobs too, let HEAD name it, and tell."""
        self.committed += [LedgerEntry(job.id, job.file, job.sha256, 1, 2, stats(2), 2) for job in jobs]
        self.step += 1
        positions = tuple(
            Cursor(job, "", "", 0, position, 1, 10, 0, stats(position), {}) for job, position in (cursors or {}).items()
        )
        name = write_checkpoint(self.home, self.step, tuple(self.committed), positions)
        told = tuple(CommittedJob(job.id, stats(2)) for job in jobs)
        self.told = Committed(name, self.step, told, cursors or {})
        await self.tell_again()

    async def tell_again(self) -> None:
        """Tell of the newest checkpoint once more, as a trainer does that got no answer."""
        await self.queue.call(self.told)

    async def train(self, job: Claimed) -> None:
        """Let the trainer consume the job and commit it."""
        await self.queue.call(Trained(job.id, stats(2)))
        await self.commit(job)

    async def crash(self, name: str, error: Exception | None = None) -> None:
        """Let an actor crash and wait until its next incarnation runs."""
        before = self.tree.ref(name).cell.incarnation
        self.tree.inject_fault(name, error or ValueError("an injected fault"))
        await eventually(lambda: self.running(name) and self.tree.ref(name).cell.incarnation > before)

    def reconfigure(self, config: Config) -> None:
        """Change live settings, and tell those whom it concerns."""
        self.store.current, self.store.revision = config, self.store.revision + 1
        for name in ("QueueManager", "Consolidator"):
            self.tree.ref(name).cast(ConfigChanged(config, self.store.revision))

    def running(self, name: str) -> bool:
        """Say whether an actor of the tree runs now."""
        found = node(self.tree.view(), name)
        return found is not None and found.status == "running"

    def said(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.heard if isinstance(message, kind)]


@asynccontextmanager
async def open_hall(
    home: Home,
    config: Config = CONFIG,
    clock: Clock | None = None,
    night: bool = False,
    disk: Disk | None = None,
    nights_disk: Disk | None = None,
) -> AsyncIterator[Hall]:
    """Open the tree. ``night``: with a Consolidator in it, on ``nights_disk``; ``disk`` is QueueManager's."""
    store = ConfigStore(config)
    hall = Hall(home, store=store)
    core = SupervisorSpec(
        "core",
        [ChildSpec("QueueManager", lambda: QueueManager(home, store, disk or Disk(), hall.board))],
        intensity=50,
        on_give_up=CoolDown(0.05),
    )
    trainer = ChildSpec("TrainerActor", lambda: FakeTrainer(hall))
    training = SupervisorSpec("training", [trainer], intensity=50, on_give_up=CoolDown(0.05))
    children = [ChildSpec("InboxWatcher", lambda: FakeWatcher(hall))]
    if night:
        consolidator = ChildSpec("Consolidator", lambda: Consolidator(home, store, nights_disk or Disk(), hall.board))
        children.append(consolidator)
    edge = SupervisorSpec("edge", children, intensity=50, on_give_up=CoolDown(0.05))
    async with open_tree(SupervisorSpec("root", [core, training, edge], strategy="rest_for_one"), clock=clock) as tree:
        hall.tree = tree
        hall.events = EventLog(tree.stream, ("lifecycle", "crashes", "queue", "state"))
        yield hall


def with_queue(**values: object) -> Config:
    """Return the configuration of the hall with other values in [queue]."""
    return msgspec.structs.replace(CONFIG, queue=msgspec.structs.replace(CONFIG.queue, **values))


async def until(clock: VirtualClock, condition: Callable[[], bool]) -> None:
    """Let time pass, slowly enough for worker threads to keep up, until the condition holds."""
    for _ in range(1000):
        if condition():
            return
        await clock.advance(0.5)
        await anyio.sleep(0.01)
    raise AssertionError("it never came to be")
