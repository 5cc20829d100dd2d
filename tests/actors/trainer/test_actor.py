"""TrainerActor among the daemon's own QueueManager, DiskMonitor and ControlSocket, in one process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.board import Board
from actors.control_socket import ControlSocket
from actors.disk_monitor import DiskMonitor
from actors.queue.manager import QueueManager
from actors.settings_store import ConfigStore
from actors.trainer.actor import TrainerActor
from actors.trainer.checkpoint import CheckpointStore
from actors.trainer.torch_tensors import TorchCodec
from protocol.config import Config, DiskSection
from protocol.home import Home
from protocol.messages.queue import Accept, Pause, Resume, WaitFinished
from protocol.messages.trainer import Progress, RunConsolidation
from protocol.records import read_head
from supervisor import ChildSpec, Disk, SupervisorSpec, Tree, open_tree
from supervisor.testing import eventually
from tests.actors.trainer.fake_port import make_home, settings

pytestmark = pytest.mark.anyio

LONG = [{"text": f"row {n} " + "and on " * 5} for n in range(120)]


@dataclass
class Daemon:
    home: Home
    board: Board
    tree: Tree

    async def submit(self, name: str, rows: list[Any]) -> str:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path = self.home.inbox / name
        path.write_bytes(data)
        accept = Accept(str(path), name, "normal", hashlib.sha256(data).hexdigest(), len(data), len(rows))
        return (await self.tree.ref("QueueManager").call(accept)).id

    async def until(self, what: Callable[[Progress], object]) -> Progress:
        await eventually(lambda: self.board.progress is not None and bool(what(self.board.progress)), within=30)
        assert self.board.progress is not None
        return self.board.progress

    async def finished(self, job: str) -> Any:
        return await self.tree.ref("QueueManager").call(WaitFinished(job), timeout=30)


@asynccontextmanager
async def daemon(root: Path, config: Config) -> AsyncIterator[Daemon]:
    home, board, disk = make_home(root), Board(), Disk()
    config = msgspec.structs.replace(config, disk=DiskSection(refuse_below=0, warn_below=0))
    store = ConfigStore(config)
    tree = SupervisorSpec(
        "root",
        [
            ChildSpec("DiskMonitor", lambda: DiskMonitor(home, store, disk, board)),
            ChildSpec("QueueManager", lambda: QueueManager(home, store, disk, board)),
            ChildSpec("ControlSocket", lambda: ControlSocket(home, store, board)),
            ChildSpec(
                "TrainerActor", lambda: TrainerActor(str(root), msgspec.to_builtins(config), 1), shutdown="infinity"
            ),
        ],
    )
    async with open_tree(tree) as opened:
        yield Daemon(home, board, opened)


async def test_a_file_becomes_a_version(small: str, tmp_path: Path) -> None:
    async with daemon(tmp_path, settings(small)) as running:
        job = await running.submit("a.jsonl", LONG[:20])
        entry = await running.finished(job)
        assert (entry.outcome, entry.samples) == ("trained", 20)
        last = await running.until(lambda one: one.version == 2 and one.id is None)
        assert last.behind_steps == 0
        assert (running.home.done / "a.jsonl").exists()
    assert (running.home.current / "model.safetensors").exists()


async def test_a_peer_that_falls_does_not_end_training(small: str, tmp_path: Path) -> None:
    async with daemon(tmp_path, settings(small, {"every_steps": 5})) as running:
        job = await running.submit("a.jsonl", LONG)
        seen = await running.until(lambda one: one.step > 3)
        for name in ("QueueManager", "DiskMonitor", "ControlSocket"):
            running.tree.inject_fault(name, RuntimeError("as if a handler had"))
        steps = (await running.until(lambda one: one.step > seen.step + 20)).step
        entry = await running.finished(job)
        assert (entry.samples, entry.interruptions) == (120, 0)
        assert entry.steps >= steps
        nodes = {node.id: node.restarts for node in running.tree.view().children}
        assert nodes["TrainerActor"] == 0
        assert nodes["QueueManager"] == nodes["DiskMonitor"] == 1


async def test_pause_and_go_on(small: str, tmp_path: Path) -> None:
    async with daemon(tmp_path, settings(small)) as running:
        queue = running.tree.ref("QueueManager")
        job = await running.submit("a.jsonl", LONG)
        await running.until(lambda one: one.step > 3)
        await queue.call(Pause(), timeout=30)
        head = read_head(running.home)
        assert head is not None
        assert head.checkpoint is not None
        (cursor,) = CheckpointStore(running.home, Disk(), TorchCodec()).load(head.checkpoint).ledger.cursors
        assert cursor.job == job
        assert running.board.held is None
        await queue.call(Resume())
        entry = await running.finished(job)
        assert entry.samples == 120


async def test_a_stop_of_the_tree_saves(small: str, tmp_path: Path) -> None:
    async with daemon(tmp_path, settings(small)) as running:
        job = await running.submit("a.jsonl", LONG)
        seen = await running.until(lambda one: one.step > 3)
        running.tree.request_shutdown("asked")
        await running.tree.wait()
        head = read_head(running.home)
        assert head is not None
        assert head.checkpoint is not None
        loaded = CheckpointStore(running.home, Disk(), TorchCodec()).load(head.checkpoint)
        assert loaded.manifest.step >= seen.global_step
        assert [cursor.job for cursor in loaded.ledger.cursors] == [job]
        assert head.version == 1
    async with daemon(tmp_path, settings(small)) as again:
        entry = await again.finished(job)
        assert (entry.samples, entry.outcome) == (120, "trained")


async def test_an_idle_trainer_consolidates_when_told(small: str, tmp_path: Path) -> None:
    async with daemon(tmp_path, settings(small, method="lora", lora_rank=2)) as running:
        trainer = running.tree.ref("TrainerActor")
        refused = await trainer.call(RunConsolidation("lease"), timeout=30)
        assert refused.outcome == "refused"
        await running.finished(await running.submit("a.jsonl", LONG[:20]))
        done = await trainer.call(RunConsolidation("lease"), timeout=30)
        assert (done.outcome, done.version) == ("promoted", 3), done.reason


async def test_a_failure_is_the_crash_of_the_actor(small: str, tmp_path: Path) -> None:
    async with daemon(tmp_path, settings(small)) as running:
        job = await running.submit("a.jsonl", LONG)
        await running.until(lambda one: one.step > 3)
        running.tree.inject_fault("TrainerActor", ValueError("poison"))
        entry = await running.finished(job)
        assert (entry.samples, entry.outcome) == (120, "trained")
        assert entry.interruptions == 1
        assert {node.id: node.restarts for node in running.tree.view().children}["TrainerActor"] == 1
