"""ControlSocket: the Unix socket server of the daemon, and the keeper of the trainer's newest progress.

``status``, ``tree`` and the configuration are answered here, from snapshots, so that they come with any other actor
wedged; everything else goes through the router.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec
from anyio import to_thread

from actors.board import Board
from actors.settings_store import ConfigStore
from actors.status import TRAINER, Surroundings, status
from protocol.home import Home
from protocol.limits import Limits
from protocol.messages.common import Message
from protocol.messages.public import PUBLIC
from protocol.messages.system import GetStatus, ModelStatus, ShowConfig, ShownConfig, State, Status
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
from supervisor import Down, Mailbox, control, on, on_down

TOPICS: Final = ("state", "steps", "queue", "logs")
"""What may be subscribed to, beside what every tree publishes."""

LOOK: Final = 1.0
"""Seconds between two looks at whether the state has changed."""


class _TrainerEnded(Message, frozen=True):
    """An incarnation of TrainerActor has ended: this stands behind all that it had said before."""


class _Look(Message, frozen=True):
    """Time to see whether the state has changed."""


class ControlSocket(control.ControlSocket):
    """Serves ``run/control.sock``. What it holds: the connections, and the board's ``progress`` and ``model``."""

    # Progress comes with each optimizer step: when it comes too fast, only the newest matters.
    mailbox = Mailbox(bound=4096, overflow="drop_oldest")

    never_suspended: ClassVar[Mapping[str, str]] = {
        "SignalHandler": "it is what would have to hear that the daemon is to stop",
    }

    def __init__(self, home: Home, store: ConfigStore, board: Board) -> None:
        settings = store.current.control
        limits = Limits(max_frame=settings.max_frame, max_connections=settings.max_connections)
        super().__init__(home.socket, PUBLIC, TOPICS, limits)
        self._home = home
        self._store = store
        self._board = board
        self._state: State | None = None

    async def on_start(self) -> None:
        await self._believe_head()
        self.context.monitor(self.context.ref(TRAINER))
        await super().on_start()
        self.context.every(LOOK, _Look())

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
