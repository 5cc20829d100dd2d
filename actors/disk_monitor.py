"""DiskMonitor: measures free space, says whether new work may begin, and hands out space before it is written to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from actors.board import Board
from actors.disk_levels import Floors, floors, lacking, level, why_critical
from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.messages.common import Done, Message
from protocol.messages.disk import (
    CheckpointCost,
    DiskView,
    GetDisk,
    Level,
    Reserve,
    Reserved,
    Unreserve,
    WriteFailed,
)
from protocol.messages.queue import DiskGate
from protocol.messages.trainer import ConfigChanged
from supervisor import Actor, Down, MailboxFull, Reason, Reply, Timer, on, on_deferred, on_down
from supervisor.durable import Disk

EAGER: Final = 1.0
"""Seconds between two measurements while somebody waits for space."""

RETURNED: Final = 1 << 20
"""After a failed write, so much more must be free than when it failed (or a tenth of a checkpoint, if that is more)."""

RETRY: Final = 600.0
"""Seconds after which a failed write is forgiven although no more is free: some quotas never show in free space."""

QUEUE = "QueueManager"
WRITER = "TrainerActor"


class _Measure(Message, frozen=True):
    """Time to look."""


class _WaitOver(Message, frozen=True):
    """A waiting reservation has waited for long enough."""

    ticket: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Reserve
    reply: Reply[Reserved]
    end: Timer


@dataclass(frozen=True, slots=True)
class _Failure:
    """A write that failed for lack of space, whatever the file system says is free."""

    free_bytes: int
    """The most that is known not to have been enough."""
    at: float
    text: str


class DiskMonitor(Actor):
    """Keeps the gate shut while space is short and opens it by itself when space returns.

    Waiting for space is not a failure of anybody: who asked to wait is answered when there is room. Reservations are
    kept in memory only, and end with the training process that made them.
    """

    def __init__(self, home: Home, store: ConfigStore, disk: Disk, board: Board) -> None:
        self._home = home
        self._store = store
        self._disk = disk
        self._board = board
        self._level: Level | None = None
        self._failure: _Failure | None = None
        self._reserved: dict[str, int] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._told: DiskGate | None = None

    async def on_start(self) -> None:
        self._space = self._disk.free(self._home.root)
        self._floors = self._wanted_floors()
        for name in (QUEUE, WRITER):
            self.context.monitor(self.context.ref(name))
        self._look()
        self._timer = self.context.after(self._pause(), _Measure())

    async def on_stop(self, reason: Reason) -> None:
        self._timer.cancel()

    def summary(self) -> Mapping[str, object]:
        return {
            "level": self._level,
            "free_bytes": self._space.free_bytes,
            "refuse_below": self._floors.refuse,
            "warn_below": self._floors.warn,
            "reservations": len(self._reserved),
            "waiting": len(self._waiting),
        }

    @on(_Measure)
    async def _measure(self, message: _Measure) -> None:
        self._look()
        self._timer = self.context.after(self._pause(), _Measure())

    @on(GetDisk)
    async def _get_disk(self, message: GetDisk) -> DiskView:
        return self._look()

    @on(ConfigChanged)
    async def _config_changed(self, message: ConfigChanged) -> None:
        self._look()
        self._look_soon()  # by the new period

    @on(CheckpointCost)
    async def _checkpoint_cost(self, message: CheckpointCost) -> None:
        self._board.checkpoint_cost = message
        self._look()

    @on(WriteFailed)
    async def _write_failed(self, message: WriteFailed) -> None:
        free = max(self._space.free_bytes, self._disk.free(self._home.root).free_bytes)
        self._failure = _Failure(free, self.context.clock.monotonic(), f"disk: {message.error} ({message.path})")
        self._look()
        self._look_soon()

    @on_deferred(Reserve)
    async def _reserve(self, message: Reserve, reply: Reply[Reserved]) -> None:
        self._look()
        why = self._lacking(message)
        if why is None:
            self._grant(message, reply)
        elif message.wait_s <= 0:
            reply.send(Reserved("", granted=False, reason=why))
        else:
            ticket = uuid4().hex
            self._waiting[ticket] = _Waiting(message, reply, self.context.after(message.wait_s, _WaitOver(ticket)))
            self._look_soon()

    @on(_WaitOver)
    async def _wait_over(self, message: _WaitOver) -> None:
        waiting = self._waiting.pop(message.ticket, None)
        if waiting is not None:
            waiting.reply.send(Reserved("", granted=False, reason=self._lacking(waiting.request) or "no room in time"))

    @on(Unreserve)
    async def _unreserve(self, message: Unreserve) -> Done:
        self._reserved.pop(message.token, None)
        self._look()
        return Done()

    @on_down
    async def _down(self, down: Down) -> None:
        if down.name == QUEUE:
            self._told = None  # it keeps nothing of this over a restart
        elif down.name == WRITER:
            self._reserved.clear()
        self._look()

    def _look(self) -> DiskView:
        """Measure, derive the level, and tell everybody whom it concerns."""
        self._space = self._disk.free(self._home.root)
        wanted = self._wanted_floors()
        before = self._level if wanted == self._floors else None  # a floor moved by the user counts at once
        self._floors = wanted
        if self._failure is not None and self._has_returned(self._failure):
            self._failure = None
        now: Level = "critical" if self._failure else level(before, self._space, self._floors)
        self._tell(now)
        self._serve()
        return self._view()

    def _tell(self, now: Level) -> None:
        changed, self._level = now != self._level, now
        view = self._board.disk = self._view()
        if changed:
            self.context.publish(
                "state", {"event": "disk", "disk_level": now, "free_bytes": view.free_bytes, "reason": self._reason()}
            )
        gate = DiskGate(self._reason())
        if gate != self._told:
            with suppress(MailboxFull):  # then the next look says it
                self.context.ref(QUEUE).cast(gate)
                self._told = gate

    def _serve(self) -> None:
        """Answer those who wait and whose turn has come, first come first served."""
        for ticket, waiting in list(self._waiting.items()):
            room = self._lacking(waiting.request) is None
            if room or waiting.reply.done:
                del self._waiting[ticket]
                waiting.end.cancel()
            if room and not waiting.reply.done:
                self._grant(waiting.request, waiting.reply)

    def _grant(self, request: Reserve, reply: Reply[Reserved]) -> None:
        token = uuid4().hex
        self._reserved[token] = request.bytes
        reply.send(Reserved(token, granted=True))

    def _lacking(self, request: Reserve) -> str | None:
        if self._failure is not None and request.purpose != "stop":
            return self._failure.text
        reserved = sum(self._reserved.values())
        return lacking(request.bytes, request.purpose, self._space, reserved, self._level or "critical", self._floors)

    def _reason(self) -> str | None:
        if self._failure is not None:
            return self._failure.text
        return why_critical(self._space, self._floors) if self._level == "critical" else None

    def _has_returned(self, failure: _Failure) -> bool:
        cost = self._board.checkpoint_cost
        margin = max(RETURNED, cost.checkpoint_bytes // 10 if cost else 0)
        waited = self.context.clock.monotonic() - failure.at
        return self._space.free_bytes >= failure.free_bytes + margin or waited >= RETRY

    def _wanted_floors(self) -> Floors:
        return floors(self._store.current.disk, self._board.checkpoint_cost)

    def _view(self) -> DiskView:
        return DiskView(
            free_bytes=self._space.free_bytes,
            total_bytes=self._space.total_bytes,
            free_inodes=self._space.free_inodes,
            level=self._level or "ok",
            refuse_below=self._floors.refuse,
            warn_below=self._floors.warn,
            reserved_bytes=sum(self._reserved.values()),
        )

    def _pause(self) -> float:
        every = self._store.current.disk.every
        return min(every, EAGER) if self._waiting or self._level == "critical" else every

    def _look_soon(self) -> None:
        self._timer.cancel()
        self._timer = self.context.after(self._pause(), _Measure())
