"""DiskMonitor in a tree, on a disk whose free space the test sets, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actors.board import Board
from actors.disk_monitor import RETRY, DiskMonitor
from actors.settings_store import ConfigStore
from protocol.config import Config, DiskSection
from protocol.home import Home
from protocol.messages.disk import CheckpointCost, GetDisk, Reserve, Reserved, Unreserve, WriteFailed
from protocol.messages.queue import DiskGate
from protocol.messages.trainer import ConfigChanged
from supervisor import Actor, ChildSpec, Disk, Pending, Ref, Space, SupervisorSpec, Tree, on, open_tree
from supervisor.testing import EventLog, VirtualClock, eventually, settle

pytestmark = pytest.mark.anyio

MIB = 1 << 20
ENOUGH = 600 * MIB
SETTINGS = DiskSection(refuse_below=100 * MIB, warn_below=500 * MIB, every=10)


class SetDisk(Disk):
    """A file system with as much free space as the test says."""

    def __init__(self) -> None:
        self.bytes = ENOUGH

    def free(self, path: Path) -> Space:
        return Space(self.bytes, 1 << 40, 1 << 20)


class GateKeeper(Actor):
    """Notes what QueueManager would be told."""

    def __init__(self, told: list[str | None]) -> None:
        self.told = told

    @on(DiskGate)
    async def _(self, message: DiskGate) -> None:
        self.told.append(message.reason)


@dataclass
class Room:
    tree: Tree
    clock: VirtualClock
    disk: SetDisk
    store: ConfigStore
    board: Board
    told: list[str | None]
    events: EventLog = field(init=False)

    def __post_init__(self) -> None:
        self.events = EventLog(self.tree.stream, ["state"])

    @property
    def monitor(self) -> Ref:
        return self.tree.ref("DiskMonitor")

    async def leave_free(self, count: int) -> None:
        """Change the free space and let the next measurement pass."""
        self.disk.bytes = count
        await self.clock.advance(SETTINGS.every)

    def configure(self, **changes: float) -> None:
        values = {name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__} | changes
        self.store.current = Config(disk=DiskSection(**values))
        self.store.revision += 1

    async def reserve(self, count: int, purpose: str = "save") -> Reserved:
        return await self.monitor.call(Reserve(count, purpose))  # type: ignore[arg-type]

    async def waiting(self, count: int, wait_s: float) -> Pending[Reserved]:
        pending = self.monitor.request(Reserve(count, "save", wait_s), timeout=2 * wait_s)
        await settle()
        return pending


@asynccontextmanager
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    clock, disk, store, board = VirtualClock(), SetDisk(), ConfigStore(Config(disk=SETTINGS)), Board()
    told: list[str | None] = []
    spec = SupervisorSpec(
        "root",
        [
            ChildSpec("DiskMonitor", lambda: DiskMonitor(Home(tmp_path), store, disk, board)),
            ChildSpec("QueueManager", lambda: GateKeeper(told)),
            ChildSpec("TrainerActor", Actor),
        ],
    )
    async with open_tree(spec, clock=clock) as tree:
        await settle()
        yield Room(tree, clock, disk, store, board, told)


async def test_the_gate_shuts_below_the_floor_and_opens_by_itself_a_tenth_above_it(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        assert the.told == [None]
        await the.leave_free(99 * MIB)
        assert the.told[1:] == ["disk: 99.0 MiB free, 100 MiB needed"]
        await the.leave_free(109 * MIB)
        assert the.told[-1] == "disk: 109 MiB free, 100 MiB needed, work goes on at 110 MiB"
        await the.leave_free(110 * MIB)
        assert the.told[-1] is None


async def test_the_board_and_the_event_stream_tell_the_level(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        assert the.board.disk is not None
        assert (the.board.disk.level, the.board.disk.free_bytes) == ("ok", ENOUGH)
        await the.leave_free(499 * MIB)
        assert the.board.disk.level == "low"
        assert the.told == [None]
        await the.leave_free(0)
        assert the.board.disk.level == "critical"
        assert [(event["event"], event["disk_level"]) for event in the.events.read(event="disk")] == [
            ("disk", "low"),
            ("disk", "critical"),
        ]


async def test_a_lowered_floor_counts_at_once_without_the_margin(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.leave_free(99 * MIB)
        the.configure(refuse_below=98 * MIB)
        the.monitor.cast(ConfigChanged(the.store.current, the.store.revision))
        await settle()
        assert the.told[-1] is None


async def test_a_shorter_period_counts_from_the_moment_it_is_announced(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.configure(every=SETTINGS.every / 10)
        the.monitor.cast(ConfigChanged(the.store.current, the.store.revision))
        await settle()
        the.disk.bytes = 99 * MIB
        await the.clock.advance(SETTINGS.every / 10)
        assert the.told[-1] == "disk: 99.0 MiB free, 100 MiB needed"


async def test_a_raised_floor_counts_at_the_next_measurement_even_unannounced(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.configure(refuse_below=ENOUGH + 1)
        await the.clock.advance(SETTINGS.every)
        assert the.told[-1] is not None


async def test_what_a_checkpoint_needs_raises_the_floors(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.monitor.cast(CheckpointCost(checkpoint_bytes=250 * MIB, version_bytes=200 * MIB))
        await settle()
        assert the.told[-1] == "disk: 600 MiB free, 700 MiB needed"
        view = await the.monitor.call(GetDisk())
        assert (view.refuse_below, view.warn_below) == (700 * MIB, 1400 * MIB)


async def test_what_a_checkpoint_needs_is_known_after_a_restart_too(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.monitor.cast(CheckpointCost(checkpoint_bytes=250 * MIB, version_bytes=200 * MIB))
        before = await the.monitor.call(GetDisk())
        the.tree.inject_fault("DiskMonitor", RuntimeError("a fault of the test"))
        await eventually(lambda: the.tree.view().children[0].restarts == 1)
        assert (await the.monitor.call(GetDisk())).refuse_below == before.refuse_below == 700 * MIB


async def test_a_restarted_queue_is_told_again(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.leave_free(0)
        before = len(the.told)
        the.tree.inject_fault("QueueManager", RuntimeError("a fault of the test"))
        await settle()
        assert the.told[before:] == ["disk: 0 B free, 100 MiB needed"]


async def test_it_is_measured_anew_on_each_question(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.disk.bytes = 7
        assert (await the.monitor.call(GetDisk())).free_bytes == 7
        await settle()
        assert the.told[-1] is not None


async def test_space_that_is_reserved_is_not_given_twice(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        first = await the.reserve(300 * MIB)
        assert first.granted
        second = await the.reserve(300 * MIB)
        assert not second.granted
        assert second.reason.startswith(
            "300 MiB needed, 300 MiB free, of which 100 MiB are held back for a stop (free space"
        )
        assert the.board.disk is not None
        assert the.board.disk.reserved_bytes == 300 * MIB
        await the.monitor.call(Unreserve(first.token))
        assert (await the.reserve(300 * MIB)).granted


async def test_a_stop_may_draw_on_the_reserve(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.leave_free(50 * MIB)
        assert not (await the.reserve(MIB)).granted
        assert (await the.reserve(50 * MIB, "stop")).granted
        assert not (await the.reserve(50 * MIB, "stop")).granted


async def test_who_waits_is_served_when_space_returns(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.leave_free(50 * MIB)
        pending = await the.waiting(10 * MIB, 100)
        await the.clock.advance(50)
        assert not pending.done
        the.disk.bytes = ENOUGH
        await the.clock.advance(1)
        assert (await pending).granted


async def test_who_waits_is_served_when_another_gives_back(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        first = await the.reserve(400 * MIB)
        pending = await the.waiting(400 * MIB, 100)
        assert not pending.done
        await the.monitor.call(Unreserve(first.token))
        assert (await pending).granted


async def test_a_wait_ends_with_the_reason(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.leave_free(50 * MIB)
        pending = await the.waiting(10 * MIB, 100)
        await the.clock.advance(100)
        answer = await pending
        assert (answer.granted, answer.reason) == (False, "disk: 50.0 MiB free, 100 MiB needed")


async def test_who_gave_up_waiting_gets_no_space(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.leave_free(50 * MIB)
        pending = await the.waiting(10 * MIB, 100)
        pending.cancel()
        await the.leave_free(ENOUGH)
        assert the.board.disk is not None
        assert the.board.disk.reserved_bytes == 0


async def test_reservations_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        assert (await the.reserve(400 * MIB)).granted
        the.tree.inject_fault("TrainerActor", RuntimeError("a fault of the test"))
        await settle()
        assert (await the.reserve(400 * MIB)).granted


async def test_a_failed_write_wins_over_what_seems_free(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.monitor.cast(WriteFailed("checkpoints/x", "No space left on device"))
        await settle()
        assert the.told[-1] == "disk: No space left on device (checkpoints/x)"
        assert the.board.disk is not None
        assert the.board.disk.level == "critical"
        await the.leave_free(ENOUGH)
        assert the.told[-1] is not None
        assert not (await the.reserve(MIB)).granted
        assert (await the.reserve(MIB, "stop")).granted
        await the.leave_free(ENOUGH + MIB)
        assert the.told[-1] is None
        assert (await the.reserve(MIB)).granted


async def test_cleaning_up_after_a_failed_write_is_not_space_returning(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.disk.bytes = 0  # filled by the very write that then failed
        the.monitor.cast(WriteFailed("checkpoints/x", "No space left on device"))
        await settle()
        await the.leave_free(ENOUGH)  # as before the write: it was not enough then
        assert the.told[-1] is not None


async def test_a_failed_write_is_tried_again_in_the_end_where_quotas_do_not_show(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.monitor.cast(WriteFailed("checkpoints/x", "Disk quota exceeded"))
        await settle()
        await the.clock.advance(RETRY - 1)
        assert the.told[-1] is not None
        await the.clock.advance(SETTINGS.every)
        assert the.told[-1] is None
