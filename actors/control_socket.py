"""ControlSocket: the Unix socket server of the daemon, and the keeper of the trainer's newest progress.

``status``, ``tree`` and the configuration are answered here, from snapshots, so that they come with any other actor
wedged; everything else goes through the router.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

import anyio
import msgspec

from actors.board import Board
from actors.router import Router
from actors.settings_store import ConfigStore
from actors.status import Surroundings, status
from protocol.connection import Limits
from protocol.home import Home
from protocol.messages.system import GetStatus, GetTree, ShowConfig, ShownConfig, Status, TreeNode
from protocol.messages.trainer import Progress
from protocol.server import Traffic, serve
from supervisor import Actor, Mailbox, on


class ControlSocket(Actor):
    """Serves ``run/control.sock``. What it holds: the connections, and the board's ``progress``."""

    # Progress comes with each optimizer step: when it comes too fast, only the newest matters.
    mailbox = Mailbox(bound=4096, overflow="drop_oldest")

    def __init__(self, home: Home, store: ConfigStore, board: Board) -> None:
        self._home = home
        self._store = store
        self._board = board
        self._traffic = Traffic()

    async def on_start(self) -> None:
        control = self._store.current.control
        limits = Limits(max_frame=control.max_frame, max_connections=control.max_connections)
        self._listening = anyio.Event()
        self.context.spawn(self._serve, limits)
        await self._listening.wait()

    async def _serve(self, limits: Limits) -> None:
        router = Router(self.context)
        async with anyio.create_task_group() as tasks:
            await tasks.start(partial(serve, self._home.socket, router, limits=limits, traffic=self._traffic))
            self._listening.set()

    def summary(self) -> Mapping[str, object]:
        return {"socket": str(self._home.socket), "connections": self._traffic.open, "accepted": self._traffic.accepted}

    @on(Progress)
    async def _(self, message: Progress) -> None:
        self._board.progress = message
        self.context.publish("steps", msgspec.to_builtins(message))

    @on(GetStatus)
    async def _(self, message: GetStatus) -> Status:
        tree = self.context.tree()
        around = Surroundings(
            pid=os.getpid(),
            uptime_s=tree.uptime_s or 0.0,
            home=str(self._home.root),
            stopping=self._board.stopping or ("the tree is stopping" if tree.status == "stopping" else None),
            tree=tree,
        )
        return status(self._board, around)

    @on(GetTree)
    async def _(self, message: GetTree) -> TreeNode:
        return self.context.tree()

    @on(ShowConfig)
    async def _(self, message: ShowConfig) -> ShownConfig:
        return self._store.shown()
