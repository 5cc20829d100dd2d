"""ControlSocket and its router: a real socket before a small tree."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.board import Board, Held
from actors.control_socket import ControlSocket
from actors.settings_store import ConfigStore
from protocol.aclient import AsyncClient, Failed, connect
from protocol.config import Config
from protocol.home import Home
from protocol.messages.common import Done, Request, TailEvent
from protocol.messages.consolidator import GetConsolidator
from protocol.messages.queue import GateView, GetQueue, JobView, QueueCounts, Resume, Skip
from protocol.messages.system import (
    GetStatus,
    GetTree,
    ModelStatus,
    ResumeActor,
    ShowConfig,
    Status,
    SuspendActor,
)
from protocol.messages.trainer import Progress
from protocol.wire import Code
from supervisor import Actor, ChildSpec, CoolDown, Refused, SupervisorSpec, Tree, on, open_tree, serve_guest
from supervisor.testing import eventually
from tests.protocol.cli import homes

pytestmark = pytest.mark.anyio

PROGRESS = Progress(
    id="j1", file="x.jsonl", priority="normal", attempt=1, phase="training", step=7, steps_total=20, samples_done=70,
    samples_total=200, tokens=1000, loss=1.5, tokens_per_s=250.0, eta_s=3.0, global_step=107, version=4, behind_steps=3,
)  # fmt: skip


class NothingRuns(Refused):
    code = "nothing_runs"


class Queue(Actor):
    """A queue with nothing in it."""

    @on(GetQueue)
    async def _(self, message: GetQueue) -> list[JobView]:
        return []

    @on(Skip)
    async def _(self, message: Skip) -> Done:
        raise NothingRuns("no file is running")

    @on(Resume)
    async def _(self, message: Resume) -> Done:
        return Done("resumed")


@dataclass
class Daemon:
    tree: Tree
    board: Board
    home: Home


@asynccontextmanager
async def daemon(home: Home) -> AsyncIterator[Daemon]:
    """A tree with the names that matter here; TrainerActor is a task that does nothing."""
    board = Board(queue_ready=True)
    store = ConfigStore(Config())
    children = [
        ChildSpec("QueueManager", Queue),
        ChildSpec("ControlSocket", lambda: ControlSocket(home, store, board)),
        ChildSpec("TrainerActor", Actor),
    ]
    async with open_tree(SupervisorSpec("root", children, on_give_up=CoolDown(0.1))) as tree:
        yield Daemon(tree, board, home)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    for folder in home.folders:
        folder.mkdir(exist_ok=True)
    return home


async def test_the_socket_is_the_owners_alone(home: Home) -> None:
    home.run.rmdir()
    async with daemon(home):
        assert home.socket.stat().st_mode & 0o777 == 0o600
        assert home.run.stat().st_mode & 0o777 == 0o700


async def test_the_model_is_known_from_head_before_the_trainer_says_a_word(home: Home) -> None:
    homes.version(home, 3, "trained")
    homes.head(home, homes.checkpoint(home, 40), version=3)
    async with daemon(home), connect(home.socket) as client:
        now = await client.call("ControlSocket", GetStatus())
        assert now.model == ModelStatus(version=3, step=40, behind_steps=10)


async def test_before_the_first_version_all_steps_are_behind(home: Home) -> None:
    homes.head(home, homes.checkpoint(home, 40), version=None)
    async with daemon(home), connect(home.socket) as client:
        now = await client.call("ControlSocket", GetStatus())
        assert now.model == ModelStatus(version=None, step=40, behind_steps=40)


async def test_with_a_head_that_cannot_be_read_nothing_is_claimed_of_the_model(home: Home) -> None:
    home.head.write_text("torn")
    async with daemon(home), connect(home.socket) as client:
        now = await client.call("ControlSocket", GetStatus())
        assert now.model == ModelStatus(version=None, step=0, behind_steps=0)


async def test_what_a_trainer_did_is_forgotten_with_it(home: Home) -> None:
    homes.version(home, 4, "trained")
    homes.head(home, homes.checkpoint(home, 100), version=4)
    async with daemon(home) as the, connect(home.socket) as client:
        trainer = the.tree.ref("TrainerActor")
        the.board.held = Held("j1", trainer.cell.incarnation)
        the.board.queue = QueueCounts(processing=1)
        the.tree.ref("ControlSocket").cast(PROGRESS)
        now = await client.call("ControlSocket", GetStatus())
        assert (now.state, now.model.step) == ("training", 107)
        assert now.job is not None and now.job.step == 7

        the.tree.inject_fault("TrainerActor", RuntimeError("a fault of the test"))
        the.tree.ref("ControlSocket").cast(PROGRESS)  # said before its death, and heard after it
        await eventually(lambda: trainer.cell.incarnation == 2 and the.board.progress is None)
        now = await client.call("ControlSocket", GetStatus())
        assert (now.state, now.reason) == ("blocked", "trainer starting (stokehold status)")
        assert now.job is None
        assert now.model.step == 100, "what was not saved is lost"


async def test_progress_survives_a_restart_of_the_socket(home: Home) -> None:
    async with daemon(home) as the, connect(home.socket) as client:
        the.tree.ref("ControlSocket").cast(PROGRESS)
        before = await client.call("ControlSocket", GetStatus())
        the.tree.inject_fault("ControlSocket", RuntimeError("a fault of the test"))
        await eventually(lambda: restarts(the.tree, "ControlSocket") == 1 and home.socket.exists())
        after = await come_back(client)
        assert (after.model, after.restarts) == (before.model, 1)


async def test_requests_reach_the_actor_and_its_answer_comes_back(home: Home) -> None:
    async with daemon(home), connect(home.socket) as client:
        assert await client.call("QueueManager", GetQueue()) == []
        tree = await client.call("ControlSocket", GetTree())
        assert [child.id for child in tree.children] == ["QueueManager", "ControlSocket", "TrainerActor"]
        shown = await client.call("ControlSocket", ShowConfig())
        assert shown.values["queue"]["max_attempts"] == 3


async def test_failures_are_typed(home: Home) -> None:
    async with daemon(home), connect(home.socket) as client:

        async def code_of(to: str, message: Request[Any]) -> str:
            with pytest.raises(Failed) as failed:
                await client.call(to, message)
            return failed.value.code

        assert await code_of("QueueManager", Skip()) == "nothing_runs"
        assert await code_of("Nobody", GetQueue()) == Code.UNKNOWN_ACTOR
        assert await code_of("Consolidator", GetQueue()) == Code.BAD_MESSAGE, "not a message of its"
        assert await code_of("Consolidator", GetConsolidator()) == Code.NOT_RUNNING, "this tree has none"
        with pytest.raises(Failed) as failed:
            async with client.subscribe(["weather"]):
                pass
        assert failed.value.code == Code.UNKNOWN_TOPIC


async def test_commands_are_noted_with_who_gave_them_and_questions_are_not(home: Home) -> None:
    async with daemon(home), connect(home.socket) as client, client.subscribe(["logs"]) as logs:
        await client.call("QueueManager", GetQueue())
        await client.call("QueueManager", Resume())
        event = await anext(logs)
        assert isinstance(event, TailEvent)
        assert event.data["command"] == "Resume"
        assert (event.data["pid"], event.data["uid"]) == (os.getpid(), os.geteuid())


async def test_a_change_of_state_is_an_event(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.control_socket.LOOK", 0.01)
    async with daemon(home) as the, connect(home.socket) as client, client.subscribe(["state"]) as events:
        seen = []
        the.board.gate = GateView(paused=True)  # now that somebody listens: there is a change to be told
        async for event in events:
            assert isinstance(event, TailEvent)
            seen.append((event.data["event"], event.data["state"], event.data["reason"]))
            if event.data["state"] == "paused":
                break
        assert seen[-1] == ("state", "paused", "paused by request (stokehold resume)")
        assert [state for _, state, _ in seen[:-1]] in (["idle"], ["starting", "idle"], ["starting"], [])


async def test_something_else_in_the_sockets_place_is_not_removed(home: Home) -> None:
    home.socket.write_text("mine")
    async with daemon(home) as the:
        assert "something else than a socket" in str(the.tree.view().children[1].last_exit)
        assert home.socket.read_text() == "mine"


def restarts(tree: Tree, name: str) -> int:
    return next(child.restarts for child in tree.view().children if child.id == name)


async def come_back(client: AsyncClient) -> Status:
    """Ask until the client has found its way to the new socket."""
    with anyio.fail_after(10):
        while True:
            try:
                return await client.call("ControlSocket", GetStatus())
            except Failed:
                await anyio.lowlevel.checkpoint()


async def test_who_would_hear_of_a_stop_is_never_suspended(home: Home) -> None:
    async with daemon(home), connect(home.socket) as client:
        for name in ("SignalHandler", "ControlSocket"):
            with pytest.raises(Failed, match=f"{name} cannot be suspended") as failed:
                await client.call("ControlSocket", SuspendActor(name))
            assert failed.value.code == "never_suspended"


async def test_a_suspended_queue_is_told_by_status_and_resumed(home: Home) -> None:
    async with daemon(home), connect(home.socket) as client:
        await client.call("ControlSocket", SuspendActor("QueueManager"))
        told = (await client.call("ControlSocket", GetStatus())).warnings
        assert told == ["QueueManager is suspended (stokehold actor resume QueueManager)"]
        await client.call("ControlSocket", ResumeActor("QueueManager"))
        assert await client.call("QueueManager", GetQueue()) == []
        assert (await client.call("ControlSocket", GetStatus())).warnings == []


async def test_no_name_of_the_daemon_can_be_joined(home: Home) -> None:
    async with daemon(home):
        for name, code in (("QueueManager", Code.NOT_JOINABLE), ("Stranger", Code.UNKNOWN_ACTOR)):
            with pytest.raises(Failed) as failed:
                await serve_guest(home.socket, name, Queue)
            assert failed.value.code == code
