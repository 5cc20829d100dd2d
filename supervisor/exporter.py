"""An actor that serves the metrics of its tree, read-only, over HTTP."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

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

from protocol.backend import AsyncioBackend, current_backend
from supervisor.actor import Actor
from supervisor.metrics import TreeMetrics
from supervisor.reasons import Reason

LOOPBACK: Final = "127.0.0.1"

GRACE: Final = 0.5
"""Seconds that requests under way are given when the server is stopped."""


class MetricsExporter(Actor):
    """Serves ``/metrics`` and ``/healthz`` beside its mailbox. In a tree's own process only, on either event loop."""

    def __init__(
        self, metrics: TreeMetrics, port: int, host: str = LOOPBACK, registry: CollectorRegistry | None = None
    ) -> None:
        """Args:
        metrics: of this tree.
        port: 0 takes any that is free; :attr:`address` and ``stokehold actor state`` show it.
        host: name or address to listen on.
        registry: what is served, with ``metrics`` registered in it; None: they alone.
        """
        if registry is None:
            registry = CollectorRegistry()
            registry.register(metrics)
        self._metrics = metrics
        self._where = host, port
        self._registry = registry
        self.address: tuple[str, int] | None = None
        """Host and port that it listens on, while it does."""

    async def on_start(self) -> None:
        """Listen and begin to serve.

        Raises:
            OSError, UnicodeError: the address cannot be had.
        """
        self._closing = anyio.Event()
        self._closed = anyio.Event()
        self._metrics.introspection = self.context.introspection
        listener = await _listen(*self._where)
        host, port = listener.getsockname()[:2]
        self.address = host, port
        self.context.spawn(self._serve, listener, name="http")

    async def on_stop(self, reason: Reason) -> None:
        if self.address is not None:
            self._closing.set()
            with anyio.move_on_after(2 * GRACE):
                await self._closed.wait()

    def summary(self) -> Mapping[str, object]:
        return {"listening": None if self.address is None else ":".join(map(str, self.address))}

    def routes(self) -> Sequence[Route]:
        """Return what is served; overridden to serve more."""
        return [Route("/metrics", self._get_metrics), Route("/healthz", self._get_health)]

    async def _serve(self, listener: socket.socket) -> None:
        asyncio = isinstance(current_backend(), AsyncioBackend)
        serve = hypercorn.asyncio.serve if asyncio else hypercorn.trio.serve
        application = Starlette(routes=self.routes())  # to the server an ASGI app is of another type
        try:
            with listener:
                await serve(cast("Any", application), _configuration(listener), shutdown_trigger=self._closing.wait)
        finally:
            self._closed.set()

    async def _get_metrics(self, request: HttpRequest) -> Response:
        """Everything, in OpenMetrics where the scraper asks for it, else in the classic text format."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), media_type=None, headers={"content-type": content_type})

    async def _get_health(self, request: HttpRequest) -> Response:
        """The event loop turns, for else nobody would answer."""
        return PlainTextResponse("ok\n")


async def _listen(host: str, port: int) -> socket.socket:
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
    listener.setblocking(False)
    return listener


def _configuration(listener: socket.socket) -> HttpConfig:
    """Return the settings of a server on a socket that is listening already, with no log of its own on the terminal."""
    config = HttpConfig()
    config.graceful_timeout = GRACE
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("supervisor.http")
    # The server's own way to be given a socket, by descriptor number, would make the descriptor inheritable.
    config.create_sockets = lambda: Sockets([], [listener], [])
    return config
