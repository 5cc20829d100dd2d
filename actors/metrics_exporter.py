"""MetricsExporter: ``/metrics``, ``/healthz`` and ``/readyz``, on loopback unless told otherwise, read-only."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Mapping
from typing import Final
from weakref import WeakKeyDictionary

import anyio
import hypercorn.asyncio
import hypercorn.trio
from hypercorn.config import Config as HttpConfig
from hypercorn.config import Sockets
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from actors.board import Board
from actors.metrics import ACTORS, DaemonMetrics
from actors.settings_store import ConfigStore
from protocol.backend import AsyncioBackend, current_backend
from protocol.messages.common import Trouble
from protocol.messages.system import HttpStatus
from supervisor import Actor, Down, Reason, on_down

NAME = "MetricsExporter"

OFF: Final = -1
"""``http.port`` that means: no server."""

GRACE: Final = 0.5
"""Seconds that requests under way are given when the server is stopped."""

NOT_READY: Final = frozenset({"starting", "stopping"})

_metrics: WeakKeyDictionary[CollectorRegistry, DaemonMetrics] = WeakKeyDictionary()


class MetricsExporter(Actor):
    """Serves HTTP beside its mailbox. A port that is taken is its own trouble: it says so, and is tried again."""

    def __init__(self, store: ConfigStore, board: Board, registry: CollectorRegistry) -> None:
        self._settings = store.current.http
        self._board = board
        self._registry = registry
        self._metrics = _metrics_of(registry, board)

    async def on_start(self) -> None:
        """Listen and begin to serve.

        Raises:
            OSError, UnicodeError: the address cannot be had. The trouble stands on the board until a start succeeds.
        """
        self._closing = anyio.Event()
        self._closed = anyio.Event()
        self._metrics.context = self.context
        for name in ACTORS:
            if name != NAME:
                self.context.monitor(self.context.ref(name))
        self.context.spawn(self._count_jobs, name="events")
        if self._settings.port == OFF:
            self._closed.set()
            return
        listener = await self._listen()
        host, port = listener.getsockname()[:2]
        self._board.http = HttpStatus(host, port)
        self.context.spawn(self._serve, listener, name="http")

    async def on_stop(self, reason: Reason) -> None:
        self._count(NAME, reason)
        self._board.http = None
        self._metrics.context = None
        self._closing.set()
        with anyio.move_on_after(2 * GRACE):
            await self._closed.wait()

    def summary(self) -> Mapping[str, object]:
        http = self._board.http
        return {"listening": f"{http.host}:{http.port}" if http else None}

    @on_down
    async def _down(self, down: Down) -> None:
        if down.incarnation:
            self._count(down.name, down.reason)

    async def _count_jobs(self) -> None:
        with self.context.subscribe(["queue"], bound=10_000) as events:
            lagged = 0
            async for event in events:
                self._metrics.job_events[str(event.data.get("event"))] += 1
                self._metrics.job_events_missed += events.lagged - lagged
                lagged = events.lagged

    def _count(self, name: str, reason: Reason) -> None:
        self._metrics.exits[name, str(reason.__struct_config__.tag)] += 1

    async def _listen(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # a name server may take its time
            family, kind, protocol, _, address = found[0]
            listener = socket.socket(family, kind, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen()
            except OSError:
                listener.close()
                raise
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            self._board.troubles[NAME] = Trouble(
                f"metrics are not served: {host} port {port}: {why}", "free that port, or set another; stokehold doctor"
            )
            raise
        self._board.troubles.pop(NAME, None)
        listener.setblocking(False)
        return listener

    async def _serve(self, listener: socket.socket) -> None:
        asyncio = isinstance(current_backend(), AsyncioBackend)
        serve = hypercorn.asyncio.serve if asyncio else hypercorn.trio.serve
        try:
            with listener:
                await serve(self._application(), _configuration(listener), shutdown_trigger=self._closing.wait)
        finally:
            self._closed.set()

    def _application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._get_metrics),
                Route("/healthz", self._get_health),
                Route("/readyz", self._get_readiness),
            ]
        )

    async def _get_metrics(self, request: HttpRequest) -> Response:
        """Everything, in OpenMetrics where the scraper asks for it, else in the classic text format."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), media_type=None, headers={"content-type": content_type})

    async def _get_health(self, request: HttpRequest) -> Response:
        """The event loop turns, for else nobody would answer."""
        return PlainTextResponse("ok\n")

    async def _get_readiness(self, request: HttpRequest) -> Response:
        """Whether files are taken in: recovery is over and no stop has begun."""
        now = self._metrics.status()
        state = now.state if now else "starting"
        body = json.dumps({"state": state, "reason": now.reason if now else None}) + "\n"
        return Response(body, 503 if state in NOT_READY else 200, media_type="application/json")


def _configuration(listener: socket.socket) -> HttpConfig:
    """Return the settings of a server on a socket that is listening already, with no log of its own on the terminal."""
    config = HttpConfig()
    config.graceful_timeout = GRACE
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("stokehold.http")
    # The server's own way to be given a socket, by descriptor number, would make the descriptor inheritable.
    config.create_sockets = lambda: Sockets([], [listener], [])
    return config


def _metrics_of(registry: CollectorRegistry, board: Board) -> DaemonMetrics:
    """Return the metrics of this registry and daemon, registering them at the daemon's first start."""
    known = _metrics.get(registry)
    if known is not None and known.board is board:
        return known
    if known is not None:
        registry.unregister(known)
    _metrics[registry] = DaemonMetrics(board)
    registry.register(_metrics[registry])
    return _metrics[registry]
