"""MetricsExporter: ``/metrics``, ``/healthz`` and ``/readyz``, on loopback unless told otherwise, read-only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from actors.board import Board
from actors.metrics import DaemonMetrics
from actors.settings_store import ConfigStore
from protocol.messages.common import Trouble
from protocol.messages.system import HttpStatus
from supervisor import Reason, exporter

NAME = "MetricsExporter"

OFF: Final = -1
"""``http.port`` that means: no server."""

NOT_READY: Final = frozenset({"starting", "stopping"})

_metrics: WeakKeyDictionary[CollectorRegistry, DaemonMetrics] = WeakKeyDictionary()


class MetricsExporter(exporter.MetricsExporter):
    """Serves HTTP beside its mailbox. A port that is taken is its own trouble: it says so, and is tried again."""

    def __init__(self, store: ConfigStore, board: Board, registry: CollectorRegistry) -> None:
        self._settings = store.current.http
        self._board = board
        self._daemon = _metrics_of(registry, board)
        super().__init__(self._daemon, self._settings.port, self._settings.host, registry)

    async def on_start(self) -> None:
        """Listen and begin to serve.

        Raises:
            OSError, UnicodeError: the address cannot be had. The trouble stands on the board until a start succeeds.
        """
        self._daemon.context = self.context
        self._daemon.introspection = self.context.introspection
        self.context.spawn(self._count_jobs, name="events")
        if self._settings.port == OFF:
            return
        try:
            await super().on_start()
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            where = f"{self._settings.host} port {self._settings.port}"
            remedy = "free that port, or set another; stokehold doctor"
            self._board.troubles[NAME] = Trouble(f"metrics are not served: {where}: {why}", remedy)
            raise
        self._board.troubles.pop(NAME, None)
        if self.address is not None:
            self._board.http = HttpStatus(*self.address)

    async def on_stop(self, reason: Reason) -> None:
        self._board.http = None
        self._daemon.context = None
        await super().on_stop(reason)

    async def _count_jobs(self) -> None:
        with self.context.subscribe(["queue"], bound=10_000) as events:
            lagged = 0
            async for event in events:
                self._daemon.job_events[str(event.data.get("event"))] += 1
                self._daemon.job_events_missed += events.lagged - lagged
                lagged = events.lagged

    def routes(self) -> Sequence[Route]:
        return [*super().routes(), Route("/readyz", self._get_readiness)]

    async def _get_readiness(self, request: HttpRequest) -> Response:
        """Whether files are taken in: recovery is over and no stop has begun."""
        now = self._daemon.status()
        state = now.state if now else "starting"
        body = json.dumps({"state": state, "reason": now.reason if now else None}) + "\n"
        return Response(body, 503 if state in NOT_READY else 200, media_type="application/json")


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
