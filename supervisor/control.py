"""A control socket for any tree: the command line, and whoever speaks the wire, can look into it and give orders.

    ChildSpec("ControlSocket", lambda: ControlSocket(path, public={"Counter": (Add, Total)}))

Give it that name: ``stokehold --socket PATH tree``, ``actor``, ``send`` and ``events`` address it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

import anyio

from protocol.limits import Limits
from protocol.messages.common import Done, Message
from protocol.messages.public import INTROSPECTION
from protocol.messages.system import (
    ActorState,
    GetActor,
    GetEvents,
    GetTree,
    RecentEvents,
    RestartActor,
    ResumeActor,
    SuspendActor,
    TreeNode,
)
from protocol.server import Traffic, serve
from protocol.wire import Code
from supervisor.actor import Actor, on, on_deferred
from supervisor.errors import Refused, StopIncomplete, SupervisorError
from supervisor.reply import Pending, Reply, as_call_failure
from supervisor.reports import TOPICS
from supervisor.router import Router
from supervisor.stream import Subscription

ORDER_WITHIN: Final = 5.0
"""Seconds for an order that came as a cast, so that nobody says how long it may take."""

REMEMBERED: Final = 100
"""Events of each topic that are kept for whoever asks what happened of late."""


class ControlSocket(Actor):
    """Serves a Unix socket for its owner: ``public`` messages to the actors named there, topics, and introspection.

    It never waits for an actor: a request becomes a pending call, and its answer goes out when it comes.

    Raises in ``on_start`` what :func:`protocol.server.serve` raises.
    """

    never_suspended: ClassVar[Mapping[str, str]] = {}
    """Other actors that no order may suspend, and why."""

    def __init__(
        self,
        path: Path,
        public: Mapping[str, tuple[type[Message], ...]] | None = None,
        topics: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """Args:
        path: of the socket; its folder should be the owner's alone.
        public: what each actor takes from outside. Messages of this actor's own are added.
        topics: that may be subscribed to, beside ``crashes``, ``lifecycle`` and the traces.
        limits: what one client may cost.
        """
        self._path = path
        self._public = dict(public or {})
        self._topics = frozenset([*TOPICS, *topics])
        self._limits = limits
        self._traffic = Traffic()
        self._recent: dict[str, Subscription] = {}

    async def on_start(self) -> None:
        self._recent = {topic: self.context.subscribe([topic], bound=REMEMBERED) for topic in sorted(self._topics)}
        own = self.context.name
        public = {**self._public, own: tuple({*INTROSPECTION, *self._public.get(own, ())})}
        self._listening = anyio.Event()
        self.context.spawn(self._serve, Router(self.context, public, self._topics))
        await self._listening.wait()

    async def _serve(self, router: Router) -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(partial(serve, self._path, router, limits=self._limits, traffic=self._traffic))
            self._listening.set()

    def summary(self) -> Mapping[str, object]:
        return {"socket": str(self._path), **asdict(self._traffic)}

    @on(GetTree)
    async def _get_tree(self, message: GetTree) -> TreeNode:
        return self.context.tree()

    @on(GetActor)
    async def _get_actor(self, message: GetActor) -> ActorState:
        return self.context.introspection.state(message.name)

    @on(GetEvents)
    async def _get_events(self, message: GetEvents) -> RecentEvents:
        for topic in message.topics:
            if topic not in self._recent:
                known = ", ".join(self._recent)
                raise Refused(f"nothing is remembered of a topic {topic}; there are: {known}", Code.UNKNOWN_TOPIC)
        wanted = message.topics or self._recent
        events = [event for topic in dict.fromkeys(wanted) for event in self._recent[topic].waiting()]
        return RecentEvents([*self._recent], sorted(events, key=lambda event: event.at))

    @on_deferred(SuspendActor)
    async def _suspend_actor(self, message: SuspendActor, reply: Reply[Done]) -> None:
        own = {self.context.name: "it is what would have to hear that it is to go on"}
        if why := {**self.never_suspended, **own}.get(message.name):
            raise Refused(f"{message.name} cannot be suspended: {why}", code="never_suspended")
        order = self.context.introspection.suspend(message.name, timeout=self._left(reply))
        order.on_done(lambda done: _answer(reply, done, f"{message.name} is suspended"))

    @on_deferred(ResumeActor)
    async def _resume_actor(self, message: ResumeActor, reply: Reply[Done]) -> None:
        order = self.context.introspection.resume(message.name, timeout=self._left(reply))
        order.on_done(lambda done: _answer(reply, done, f"{message.name} is resumed"))

    @on_deferred(RestartActor)
    async def _restart_actor(self, message: RestartActor, reply: Reply[ActorState]) -> None:
        self.context.introspection.state(message.name)  # of nobody: refused at once
        self.context.spawn(self._restart, message.name, reply)

    async def _restart(self, name: str, reply: Reply[ActorState]) -> None:
        try:
            reply.send(await self.context.introspection.restart(name))
        except Refused as error:
            reply.fail(error)
        except (SupervisorError, StopIncomplete) as error:
            reply.fail(as_call_failure(Refused(f"{name} was not restarted: {error}", code="not_restarted")))

    def _left(self, reply: Reply[Done]) -> float:
        left = reply.deadline - self.context.clock.monotonic()
        return left if left > 0 else ORDER_WITHIN


def _answer(reply: Reply[Done], order: Pending[None], text: str) -> None:
    if order.error is None:
        reply.send(Done(text))
    else:
        reply.fail(order.error)
