"""ControlSocket: the Unix socket server of the daemon, and the keeper of the trainer's newest progress.

``status``, ``tree`` and the configuration are answered here, from snapshots, so that they come with any other actor
wedged; everything else goes through the router.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Final

import anyio
import msgspec
from anyio import to_thread

from actors.board import Board
from actors.router import Router
from actors.settings_store import ConfigStore
from actors.status import TRAINER, Surroundings, status
from protocol.connection import Limits
from protocol.home import Home
from protocol.messages.common import Message
from protocol.messages.system import GetStatus, GetTree, ModelStatus, ShowConfig, ShownConfig, State, Status, TreeNode
from protocol.messages.trainer import Progress
from protocol.records import (
    MANIFEST,
    CheckpointManifest,
    NewerFormat,
    Unreadable,
    VersionManifest,
    read_head,
    read_record,
)
from protocol.server import Traffic, serve
from supervisor import Actor, Down, Mailbox, on, on_down

LOOK: Final = 1.0
"""Seconds between two looks at whether the state has changed."""


class _TrainerEnded(Message, frozen=True):
    """An incarnation of TrainerActor has ended: this stands behind all that it had said before."""


class _Look(Message, frozen=True):
    """Time to see whether the state has changed."""


class ControlSocket(Actor):
    """Serves ``run/control.sock``. What it holds: the connections, and the board's ``progress`` and ``model``."""

    # Progress comes with each optimizer step: when it comes too fast, only the newest matters.
    mailbox = Mailbox(bound=4096, overflow="drop_oldest")

    def __init__(self, home: Home, store: ConfigStore, board: Board) -> None:
        self._home = home
        self._store = store
        self._board = board
        self._traffic = Traffic()
        self._state: State | None = None

    async def on_start(self) -> None:
        control = self._store.current.control
        limits = Limits(max_frame=control.max_frame, max_connections=control.max_connections)
        self._listening = anyio.Event()
        await self._believe_head()
        self.context.monitor(self.context.ref(TRAINER))
        self.context.spawn(self._serve, limits)
        await self._listening.wait()
        self.context.every(LOOK, _Look())

    async def _serve(self, limits: Limits) -> None:
        router = Router(self.context)
        async with anyio.create_task_group() as tasks:
            await tasks.start(partial(serve, self._home.socket, router, limits=limits, traffic=self._traffic))
            self._listening.set()

    def summary(self) -> Mapping[str, object]:
        return {"socket": str(self._home.socket), **asdict(self._traffic)}

    @on(Progress)
    async def _(self, message: Progress) -> None:
        self._board.progress = message
        if message.version is not None or message.global_step:  # else it has not read HEAD yet, or could not
            self._board.model = ModelStatus(message.version, message.global_step, message.behind_steps)
        self.context.publish("steps", msgspec.to_builtins(message))

    @on_down
    async def _down(self, down: Down) -> None:
        self.context.self_ref.cast(_TrainerEnded())

    @on(_TrainerEnded)
    async def _(self, message: _TrainerEnded) -> None:
        """What it was doing is over, and what it had not saved is lost: HEAD tells what is left."""
        self._board.progress = None
        await self._believe_head()

    async def _believe_head(self) -> None:
        if self._board.progress is None:
            self._board.model = await to_thread.run_sync(model_at, self._home)

    @on(GetStatus)
    async def _(self, message: GetStatus) -> Status:
        return self._status()

    @on(_Look)
    async def _(self, message: _Look) -> None:
        """Tell of a change of state; the state is derived, so nobody else knows when it changes."""
        now = self._status()
        if now.state != self._state:
            self._state = now.state
            self.context.publish("state", {"event": "state", "state": now.state, "reason": now.reason})

    def _status(self) -> Status:
        return status(self._board, Surroundings.of(self.context, self._board, str(self._home.root)))

    @on(GetTree)
    async def _(self, message: GetTree) -> TreeNode:
        return self.context.tree()

    @on(ShowConfig)
    async def _(self, message: ShowConfig) -> ShownConfig:
        return self._store.shown()


def model_at(home: Home) -> ModelStatus:
    """Return what HEAD says of the model; nothing, if HEAD or what it names cannot be read."""
    try:
        head = read_head(home)
        if head is None:
            return ModelStatus(None, 0, 0)
        step = published = 0
        if head.checkpoint is not None:
            step = read_record(home.checkpoints / head.checkpoint / MANIFEST, CheckpointManifest).step
        if head.version is not None:
            published = read_record(home.version(head.version) / MANIFEST, VersionManifest).step
    except (FileNotFoundError, Unreadable, NewerFormat):
        return ModelStatus(None, 0, 0)
    return ModelStatus(head.version, step, max(0, step - published))
