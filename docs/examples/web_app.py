"""A tree in a Starlette app (FastAPI takes the same lifespan): actors behind the routes, its metrics on one of them.

Run: python docs/examples/web_app.py PORT [SOCKET]
With SOCKET also: stokehold --socket SOCKET tree
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hypercorn.asyncio import serve
from hypercorn.config import Config
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from supervisor import Actor, CallFailed, ChildSpec, CoolDown, Message, Request, SupervisorSpec, on, open_tree
from supervisor.control import ControlSocket
from supervisor.metrics import TreeMetrics


class Visit(Request[int], frozen=True):
    """Answered with how many came to this page so far."""

    page: str


class Burn(Message, frozen=True):
    """Crash."""


class Visits(Actor):
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @on(Visit)
    async def _(self, message: Visit) -> int:
        self.counts[message.page] = self.counts.get(message.page, 0) + 1
        return self.counts[message.page]

    @on(Burn)
    async def _(self, message: Burn) -> None:
        raise RuntimeError("burnt")


def application(socket: Path | None = None) -> Starlette:
    """Return the app. It brings its tree up before the first request, and down after the last."""
    children = [ChildSpec("visits", Visits)]
    if socket is not None:
        children.append(ChildSpec("ControlSocket", lambda: ControlSocket(socket, {"visits": (Visit, Burn)})))
    spec = SupervisorSpec("app", children, on_give_up=CoolDown(1.0))  # a web app had rather try again than end

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_tree(spec) as tree:
            app.state.tree = tree
            app.state.registry = CollectorRegistry()
            app.state.registry.register(TreeMetrics("app", tree.introspection))
            yield

    return Starlette(
        routes=[
            Route("/visit/{page}", visit),
            Route("/burn", burn, methods=["POST"]),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
    )


async def visit(request: HttpRequest) -> Response:
    try:
        number = await request.app.state.tree.ref("visits").call(Visit(request.path_params["page"]), timeout=2)
    except CallFailed as failure:  # it restarts, or is full, or was too slow: the browser is told, and may come again
        return PlainTextResponse(f"{failure}\n", 503)
    return JSONResponse({"visits": number})


async def burn(request: HttpRequest) -> Response:
    request.app.state.tree.ref("visits").cast(Burn())
    return Response(status_code=202)


async def metrics(request: HttpRequest) -> Response:
    return PlainTextResponse(generate_latest(request.app.state.registry))


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    asyncio.run(serve(application(Path(sys.argv[2]) if sys.argv[2:] else None), config))
