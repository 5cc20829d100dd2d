"""What all parts of one running tree share."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from protocol.backend import Backend
from supervisor.alarms import Alarms
from supervisor.clock import Clock
from supervisor.errors import NotRunning, Stuck
from supervisor.introspection import Introspection
from supervisor.mailbox import Cell, Phase
from supervisor.monitor import Down, Inject
from supervisor.reasons import Reason
from supervisor.registry import Registry
from supervisor.spec import names_in
from supervisor.stream import EventStream, Subscription
from supervisor.tally import Tally

if TYPE_CHECKING:
    from protocol.messages.system import TreeNode
    from supervisor.record import ChildRecord
    from supervisor.requests import Request
    from supervisor.supervision import Supervisor


class TreeRuntime:
    """Names, children, stream and deadline of one tree. The :class:`Surroundings` of its actors."""

    def __init__(self, clock: Clock, backend: Backend, stream: EventStream) -> None:
        self.clock = clock
        self.backend = backend
        self.stream = stream
        self.alarms = Alarms(clock)
        self.registry = Registry(clock, backend)
        self.tally = Tally()
        self.introspection = Introspection(self)
        stream.on_interest = self.introspection.interest
        self.children: dict[str, ChildRecord] = {}
        """Every child known to a supervisor, by name."""
        self.supervisors: dict[str, Supervisor] = {}
        """The supervisors that run, by id."""
        self.stuck: dict[str, Stuck] = {}
        """Children past every limit, until they do end."""
        self.asking: dict[object, Request] = {}
        """What the tasks that wait for a supervisor's answer have asked, by task."""
        self.stop_by: float | None = None
        """When the whole stop must be over, on the monotonic clock; ``None`` while nobody set it."""
        self.chance = random.Random()  # jitter, not secrets
        self.on_shutdown_request: Callable[[str, int], None] = lambda reason, code: None
        self._numbers = itertools.count(1)
        self.view: Callable[[], TreeNode]

    def shorten_deadline(self, seconds: float) -> None:
        """Let the stop end within so many seconds from now, if that is earlier than what holds already."""
        by = self.clock.monotonic() + seconds
        if self.stop_by is None or by < self.stop_by:
            self.stop_by = by
            for supervisor in self.supervisors.values():
                supervisor.wake()

    def inject(self, name: str, error: Exception) -> None:
        """Have the actor raise the error as if a handler had."""
        child = self.children.get(name)
        if child is None or child.cell.phase is not Phase.RUNNING:
            raise NotRunning(f"{name} is not running")
        child.cell.put_system(Inject(error))

    def drop(self, child: ChildRecord, *, for_good: bool = True) -> None:
        """The child is known no more; the names of its specification neither, if it went for good."""
        if self.children.get(child.id) is child:
            del self.children[child.id]
            if for_good:
                for name in names_in(child.spec):
                    self.registry.forget(name)

    def fresh_id(self, id: str) -> str:
        """Return the id with a number behind it that no child of this tree has or had by this way."""
        return next(name for number in self._numbers if not self.is_taken(name := f"{id}.{number}"))

    def is_taken(self, name: str) -> bool:
        """Whether a child of this name exists, also one whose supervisor does not run at the moment, or is stuck."""
        return self.registry.knows(name) or name in self.children or name in self.stuck

    # -- Surroundings

    def cell(self, name: str) -> Cell:
        return self.registry.cell(name)

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        self.stream.publish(topic, data)

    def is_heard(self, topic: str) -> bool:
        return self.stream.is_heard(topic)

    def subscribe(self, topics: Iterable[str], bound: int) -> Subscription:
        return self.stream.subscribe(topics, bound)

    def tree(self) -> TreeNode:
        return self.view()

    def request_shutdown(self, reason: str, exit_code: int) -> None:
        self.on_shutdown_request(reason, exit_code)

    def watch(self, watcher: Hashable, name: str, notify: Callable[[Down], None]) -> None:
        self.registry.watch(watcher, name, notify)

    def unwatch(self, watcher: Hashable, name: str) -> None:
        self.registry.unwatch(watcher, name)

    def fail(self, name: str, incarnation: int, reason: Reason) -> None:
        child = self.children.get(name)
        if child is not None and child.incarnation is not None and child.incarnation.number == incarnation:
            child.incarnation.fail(reason)
