"""Serve an actor in somebody else's tree, from any asyncio or trio program: join it through its control socket.

In the tree stands a place for it, and a :class:`~supervisor.control.ControlSocket` to come in by::

    SupervisorSpec("root", [joinable("Scorer"), ChildSpec("ControlSocket", lambda: ControlSocket(path))])

In the other program, which needs nothing of the tree but the path of that socket::

    class Scorer(Actor):
        @on(Score)
        async def _(self, message: Score) -> float:
            return await self.context.ref("Judge").call(Judge(message.text))

    anyio.run(serve_guest, path, "Scorer", Scorer)

Messages are found by the names of their modules, so both import them from the same one. What the actor is to the tree,
and what the tree is to it, stands in ``docs/semantics.md`` under *Guests*; in short: an actor like any other, but
nobody there starts it, and its end is no failure of its supervisor.
"""

from __future__ import annotations

import logging
import random
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

from protocol.backend import current_backend
from protocol.boundary import Boundary
from protocol.client import NAME
from protocol.join import join
from protocol.quick import Failed, NoDaemon
from protocol.wire import Code
from supervisor.actor import Actor
from supervisor.backoff import Backoff
from supervisor.errors import ChildStartFailed, StopIncomplete, Stuck
from supervisor.limits import TASK_GRACE
from supervisor.link_child import Daemon
from supervisor.link_life import LinkLife
from supervisor.reasons import Reason, Shutdown, StartFailed, is_clean, unwrapped
from supervisor.spec import ChildSpec, RestartType

__all__ = ["Guest", "open_guest", "serve_guest"]

_log = logging.getLogger("supervisor")

JOIN_WITHIN: Final = 5.0
"""Seconds that a join may take until it is tried again."""

REJOIN: Final = Backoff(first=0.05, most=5.0, jitter=1.0, reset_after=10.0)
"""When to join again, unless told otherwise. Much of a delay is left to chance: guests should not come all at once."""

HOPELESS: Final = frozenset(
    {
        Code.UNKNOWN_ACTOR,
        Code.NOT_JOINABLE,
        Code.NOT_ALLOWED,
        Code.INCOMPATIBLE,
        Code.BAD_HELLO,
        Code.BAD_MESSAGE,
        Code.BAD_FRAME,
    }
)
"""Refusals that no waiting mends."""


async def serve_guest(
    path: str | Path,
    name: str,
    make: Callable[[], Actor],
    *,
    restart: RestartType = "transient",
    backoff: Backoff = REJOIN,
) -> Reason:
    """Serve an actor under this name in the tree behind this socket, until it ends, is told to stop, or is cancelled.

    Each join is a new incarnation, with an actor that ``make`` has just made. It joins again, after a delay, whenever
    the link ends (the program of the tree was killed, or cut it off) and when the tree stops it in order to restart it.

    Args:
        path: of the control socket.
        name: one that the tree declares :func:`~supervisor.spec.joinable`.
        make: makes the actor; its class will do.
        restart: ``transient``: unless the actor ended cleanly by itself, or was told to stop for good, because its tree
            or its place in it was closed. ``permanent``: whatever ended it, until cancelled. ``temporary``: never.
        backoff: the delays between joins; they grow until one has lasted ``reset_after`` seconds.

    Returns:
        Why the last incarnation ended. A cancelled one has run its ``on_stop``, within the limit of its place.

    Raises:
        Failed: the tree refuses us, and no waiting mends that: ``unknown_actor``, ``not_joinable``, ``not_allowed``,
            ``incompatible``; or, at the first join, ``taken``. A daemon that is away or busy is waited for.
        SpecError: of the name, ``make`` or ``restart``.
        ChildStartFailed: the actor failed to start when it first joined.
        StopIncomplete: cancelled, the actor would not end.
    """
    async with open_guest(path, name, make, restart=restart, backoff=backoff) as guest:
        return await guest.wait()


@asynccontextmanager
async def open_guest(
    path: str | Path,
    name: str,
    make: Callable[[], Actor],
    *,
    restart: RestartType = "transient",
    backoff: Backoff = REJOIN,
) -> AsyncGenerator[Guest]:
    """Serve a guest for the length of the block, beside whatever else the program does. See :func:`serve_guest`.

    Entering returns once it has joined and started. Leaving stops it.
    """
    guest = Guest(Path(path), name, make, restart, backoff)
    try:
        await guest.enter()
        yield guest
    finally:
        with anyio.CancelScope(shield=True):
            await guest.leave()


class _Tree(Daemon):
    """What surrounds a guest."""

    def request_shutdown(self, reason: str, exit_code: int) -> None:
        raise RuntimeError("a guest may not stop the tree")


class Guest:
    """A name of somebody's tree that this program serves. Made by :func:`open_guest`."""

    def __init__(
        self, path: Path, name: str, make: Callable[[], Actor], restart: RestartType, backoff: Backoff
    ) -> None:
        ChildSpec(name, make, restart)  # what makes no sense is refused before anything starts
        self.name = name
        self._path = path
        self._make = make
        self._restart = restart
        self._backoff = backoff
        self._chance = random.Random()  # jitter, not secrets
        self._life: LinkLife | None = None
        self._waiting: anyio.CancelScope | None = None
        """Around whatever is waited for between two lives."""
        self._noted = ""
        self._has_joined = False
        self._entered = anyio.Event()
        self._leaving = False
        self._reason: Reason = Shutdown("it never joined")
        self._error: BaseException | None = None
        self._over = anyio.Event()
        current_backend().spawn(self._run, f"guest {name}")

    @property
    def incarnation(self) -> int:
        """The number of the present life in the tree, or of the newest; 0 before the first."""
        life = None if self._life is None else self._life.life
        return 0 if life is None else life.number

    async def wait(self) -> Reason:
        """Wait until it serves no more, and return why. Raises as :func:`serve_guest` does."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
        return self._reason

    async def enter(self) -> None:
        """Wait until it has joined and started."""
        await self._entered.wait()
        if self._error is not None:
            raise self._error

    async def leave(self) -> None:
        """Stop the actor, and join no more. Raises :class:`StopIncomplete`: it would not end."""
        self._leaving = True
        if self._waiting is not None:
            self._waiting.cancel()
        life = self._life
        if life is not None and not life.over.is_set():
            life.leave(Shutdown("the guest leaves"))
            limit = life.limit
            with anyio.move_on_after(None if limit == "infinity" else limit + TASK_GRACE):
                await life.over.wait()
            if not life.over.is_set() and life.life is not None:
                raise StopIncomplete([Stuck(self.name, life.life.where())])
        await self._over.wait()

    # ---------------------------------------------------------------- one life after another

    async def _run(self) -> None:
        with Boundary(None) as edge:
            await self._serve()
        self._error = edge.error
        self._entered.set()
        self._over.set()

    async def _serve(self) -> None:
        attempt = 0
        while not self._leaving:
            link = await self._join()
            if link is not None:
                begun = time.monotonic()
                if await self._live(link):
                    return
                if time.monotonic() - begun >= self._backoff.reset_after:
                    attempt = 0
            if not self._leaving:
                with anyio.CancelScope() as self._waiting:
                    await anyio.sleep(self._backoff.delay(attempt, self._chance))
            attempt += 1

    async def _join(self) -> socket.socket | None:
        """Join once. None: not now, or we are leaving."""
        try:
            with anyio.CancelScope() as self._waiting:
                link = await join(self._path, self.name, NAME, JOIN_WITHIN)
                if not self._leaving:
                    return link
                link.close()
        except NoDaemon as error:
            self._note(str(error))
        except Failed as error:
            if error.code in HOPELESS or (error.code == Code.TAKEN and not self._has_joined):
                raise
            self._note(error.message)
        return None

    async def _live(self, link: socket.socket) -> bool:
        """Serve over this link until it, or the actor, has ended, and nothing is left of the actor. True: no more."""
        life = LinkLife(link, lambda _: self._make(), lambda: self._lost(life), self._joined, _Tree)
        self._life = life
        with link, Boundary(None) as edge:
            await life.run()
        if edge.error is not None:  # what the tree says cannot be understood: joining again would not help
            life.leave(Shutdown("the tree cannot be understood"))
            await life.over.wait()
            raise unwrapped(edge.error)
        if life.reason is None:
            return False
        self._reason = life.reason
        if isinstance(life.reason, StartFailed) and not self._has_joined:
            raise ChildStartFailed(self.name, life.reason)
        if self._leaving or self._restart == "temporary":
            return True
        if self._restart == "permanent":
            return False
        if life.stop is not None:  # also if it was cut off before it could obey
            return not life.stop.returns
        return not life.lost and is_clean(life.reason)

    def _joined(self) -> None:
        _log.info("%s: joined the tree at %s", self.name, self._path)
        self._has_joined = True
        self._noted = ""
        self._entered.set()

    def _lost(self, life: LinkLife) -> None:
        """The link has ended, and the actor has not."""
        if life.stop is not None:
            life.cancel()  # it was asked to stop, and its time is up
        elif life.lost:
            life.leave(Shutdown("the link to the tree has ended"))

    def _note(self, why: str) -> None:
        """Log why it cannot join at present; not again until that changes."""
        if why != self._noted:
            self._noted = why
            _log.warning("%s: %s; it joins as soon as it can", self.name, why)
