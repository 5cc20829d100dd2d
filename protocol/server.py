"""The Unix socket server: accepts, admits, and keeps the socket in its place. What is said there is a handler's affair.

async with anyio.create_task_group() as tasks:
    await tasks.start(partial(serve, path, handler))
"""

from __future__ import annotations

import errno
import math
import os
import resource
import socket
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.abc

from protocol.answers import Answers, Asked
from protocol.connection import Connection
from protocol.handler import Handler
from protocol.limits import Limits
from protocol.listening import Listening, listening, may_command, peer_of
from protocol.turns import Turns
from protocol.wire import VERSION, Code, WelcomeFrame

__all__ = ["Limits", "Traffic", "serve"]

NAME = "stokehold/0.1.0"

SPARE = 16
"""Connections above the limit that may say hello, to be told that there is no room."""

OTHER_FILES = 256
"""File descriptors that the rest of the process may need: most systems give 1,024 in all unless asked for more."""

OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
STARVED_PAUSE = 0.1
"""Seconds to wait when no file descriptor is left: the connection stays in the backlog."""

ABANDONED = 1000
"""Requests that go on although nobody waits for them any more; above it the oldest are given up before their time."""

WATCH_EVERY = 2.0
"""Seconds between two looks at whether the socket's file is still there."""


@dataclass(slots=True)
class Traffic:
    """What the server has seen, for introspection and metrics."""

    open: int = 0
    accepted: int = 0
    strangers: int = 0
    """Turned away: another user's process."""
    evicted: int = 0
    """Closed to make room before they had said hello."""
    starved: int = 0
    """Times that no file descriptor was left to accept with."""


async def serve(
    path: Path,
    handler: Handler,
    *,
    limits: Limits | None = None,
    name: str = NAME,
    traffic: Traffic | None = None,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Listen at ``path`` and serve all who may command, until cancelled. Ready when ``task_status`` is started.

    Args:
        path: of the socket, of any length; see :func:`protocol.listening.listening`.
        handler: takes requests, casts and subscriptions. An exception of its own ends the server with it.
        limits: what one client may cost.
        name: said in the welcome, ``name/version``.
        traffic: counted into.

    The process's soft limit of open files is raised as far as the connections need and the hard limit lets it.

    Raises:
        SocketTaken: a live server answers there, or something that is no socket is in the way.
        OSError: the folder cannot be made or written.
    """
    limits = limits or Limits()
    _make_room(limits.max_connections + SPARE)
    server = _Server(handler, limits, name, traffic or Traffic())
    try:
        async with anyio.create_task_group() as server.tasks:
            server.tasks.start_soon(server.give_up_abandoned)
            while True:
                with listening(path) as published:
                    task_status.started()
                    task_status = anyio.TASK_STATUS_IGNORED
                    async with anyio.create_task_group() as round_:
                        round_.start_soon(server.accept, published.socket)
                        await _until_gone(published)
                        round_.cancel_scope.cancel()
    finally:
        server.close()


def _make_room(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _until_gone(published: Listening) -> None:
    """Return when the socket's file was removed, so that it is published anew. Open connections do not notice."""
    while published.path.is_socket():  # noqa: ASYNC110, nothing tells of it but a look
        await anyio.sleep(WATCH_EVERY)


class _Server:
    tasks: anyio.abc.TaskGroup

    def __init__(self, handler: Handler, limits: Limits, name: str, traffic: Traffic) -> None:
        self._handler = handler
        self._limits = limits
        self._traffic = traffic
        self._answers = Answers()
        self._turns = Turns()
        self._welcome = WelcomeFrame(version=VERSION, server=name, pid=os.getpid(), instance=str(uuid4()))
        self._lobby: dict[Connection, None] = {}
        """Those without a hello, oldest first."""
        self._admitted: set[Connection] = set()
        self._abandoned: deque[tuple[float, Asked]] = deque()
        """Requests whose clients have gone, and until when they may come back with the same ones, soonest first."""
        self._left = anyio.Event()

    async def accept(self, listener: socket.socket) -> None:
        """Accept for ever, one after another: each costs as much as many messages.

        Running out of file descriptors is waited out, never spun on.
        """
        while True:
            await anyio.wait_readable(listener)
            try:
                while True:
                    self._turns.begin(self)
                    self._receive(listener.accept()[0])
                    await anyio.sleep(self._turns.pause)
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                if error.errno not in OUT_OF_FILES:
                    raise
                self._traffic.starved += 1
                self._evict()
                await anyio.sleep(STARVED_PAUSE)

    def _receive(self, sock: socket.socket) -> None:
        peer = peer_of(sock)
        if not may_command(peer):
            self._traffic.strangers += 1
            sock.close()
            return
        sock.setblocking(False)
        self._traffic.accepted += 1
        if len(self._lobby) + len(self._admitted) >= self._limits.max_connections + SPARE:
            self._evict()
        connection = Connection(
            sock, peer, self._handler, self._answers, self._limits, self._welcome, self._admit, self._turns
        )
        self._lobby[connection] = None
        self.tasks.start_soon(self._run, connection)

    def _evict(self) -> None:
        """Make room: who has not said hello goes first, the oldest before the others."""
        if self._lobby:
            oldest = next(iter(self._lobby))
            del self._lobby[oldest]
            oldest.scope.cancel()
            self._traffic.evicted += 1

    def _admit(self, connection: Connection) -> bool:
        """Let a connection that said hello in, if there is room. One that was evicted meanwhile has none."""
        if connection not in self._lobby or len(self._admitted) >= self._limits.max_connections:
            return False
        del self._lobby[connection]
        self._admitted.add(connection)
        return True

    async def _run(self, connection: Connection) -> None:
        self._traffic.open += 1
        try:
            await connection.run()
        finally:
            self._traffic.open -= 1
            self._lobby.pop(connection, None)
            self._admitted.discard(connection)
            self._keep(connection.abandoned)

    def _keep(self, abandoned: list[Asked]) -> None:
        until = anyio.current_time() + self._limits.retry_within
        self._abandoned.extend((until, asked) for asked in abandoned)
        while len(self._abandoned) > ABANDONED:
            _give_up(self._abandoned.popleft()[1])
        self._left.set()

    async def give_up_abandoned(self) -> None:
        """Give up, for ever, what nobody came back for in time."""
        while True:
            while self._abandoned and self._abandoned[0][0] <= anyio.current_time():
                _give_up(self._abandoned.popleft()[1])
            self._left = anyio.Event()
            with anyio.move_on_at(self._abandoned[0][0] if self._abandoned else math.inf):
                await self._left.wait()

    def close(self) -> None:
        """Nobody can come back any more."""
        for _, asked in self._abandoned:
            _give_up(asked)


def _give_up(asked: Asked) -> None:
    if not asked.waiters:
        asked.cancel()
        asked.fail(Code.CONNECTION_LOST, "given up: nobody waited for the answer any more")  # if that is not its answer
