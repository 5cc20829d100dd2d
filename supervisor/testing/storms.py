"""Weather for a tree: crashes, delays and lost peers, from a seed, so that what broke something can be repeated."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import anyio
from anyio.abc import TaskGroup

from protocol.messages.system import TreeNode
from supervisor.clock import Clock
from supervisor.errors import ChildStartFailed, NoSuchActor, SupervisorError
from supervisor.reply import Pending
from supervisor.spec import ChildSpec
from supervisor.testing.clock import VirtualClock
from supervisor.testing.watching import eventually
from supervisor.tree import Tree

Kind = Literal["crash", "delay", "loss"]

_AT_REST = ("running", "stopped", "not started", "absent")
_UNDER_WAY = ("starting", "stopping", "exited")
_STEP = 0.25
"""Seconds between two looks whether it is calm."""
_STRIDE = 1.0
"""Seconds that a virtual clock moves at most between two looks at the processes: less than their limits."""
_REAL = 30.0
"""Seconds of real time for a process to start or to end."""


@dataclass(frozen=True, slots=True)
class Blow:
    """What struck whom, and when, in seconds since the storm began. ``spell``: for how many seconds.

    Example::

        assert str(Blow(12.5, "delay", "counter", spell=0.25)) == "  12.500 s  delay  counter for 0.250 s"
    """

    at: float
    kind: Kind
    actor: str
    spell: float = 0.0

    def __str__(self) -> str:
        return f"{self.at:8.3f} s  {self.kind:<5}  {self.actor}" + (f" for {self.spell:.3f} s" if self.spell else "")


class StormError(Exception):
    """What an actor raises that a storm makes crash.

    Example::

        async with open_tree(spec, clock=VirtualClock()) as tree:
            log = EventLog(tree.stream)
            await Storm(tree, seed=1, kinds=["crash"]).rage(blows=1)
            await log.wait_for(actor="counter", error="StormError")
    """


class Storm:
    """Strikes the actors of a tree at random: with crashes, with delays in which they handle nothing, and with losses.

    A loss is a kill -9 for an actor in a process of its own, which its supervisor then starts again; any other is
    terminated, and started again when the spell is over. A ``temporary`` actor is not lost, since nobody would start
    it again, and neither is a guest, whose process is somebody else's. Times are those of the tree's clock. A
    :class:`VirtualClock` is moved by the storm, so that hours of weather take seconds, and on asyncio, with actors
    that do no real I/O, one seed is one course of events (trio takes tasks in an order of its own). While a process
    child starts or ends, which takes real time, a virtual clock stands still.

    Example::

        async with open_tree(spec, clock=VirtualClock()) as tree:
            storm = Storm(tree, seed=7)
            await storm.rage(blows=50, seconds=600)
            await storm.calm()  # everybody is back; else it says so, with the seed and all blows
            assert await tree.ref("counter").call(Total()) >= 0  # and what your own actors promise

    Args:
        tree: to strike.
        seed: of chance.
        actors: names of those to strike; None: every actor that is there when it strikes.
        kinds: of blows.
        longest: of a spell, in seconds.
    """

    def __init__(
        self,
        tree: Tree,
        seed: int,
        *,
        actors: Iterable[str] | None = None,
        kinds: Iterable[Kind] = ("crash", "delay", "loss"),
        longest: float = 2.0,
    ) -> None:
        self.seed = seed
        self.blows: list[Blow] = []
        """Those that struck, in order."""
        self._tree = tree
        self._clock: Clock = tree.clock
        self._actors = None if actors is None else frozenset(actors)
        self._kinds = tuple(kinds)
        self._longest = longest
        self._chance = random.Random(seed)
        self._began = self._clock.monotonic()
        self._remedies: list[tuple[float, str, str]] = []
        """When, whom, and under which supervisor; no supervisor: it is resumed."""
        self._struck: dict[str, int] = {}
        """The incarnation that has to end, by actor: a blow may take a while to be felt."""
        self._orders: list[Pending[None]] = []
        """To suspend and to resume."""
        self._open = 0
        """Requests to supervisors that are not answered yet."""

    async def rage(self, blows: int = 50, seconds: float = 30.0) -> None:
        """Strike so many times within about so many seconds. It ends early with the tree.

        Raises:
            StopIncomplete: an actor that was terminated would not end.
        """
        async with anyio.create_task_group() as tasks:
            for _ in range(blows):
                await self._let_pass(self._chance.random() * 2 * seconds / blows, tasks)
                if self._tree.stopping:
                    break
                self._strike(tasks)
            await self._answered(tasks)

    async def calm(self, within: float = 60.0) -> None:
        """Take all delays and losses back, and wait until every actor runs, or has ended for good as its type allows.

        Raises:
            AssertionError: it does not become calm within so many seconds, or the tree has given up. It names the seed
                and every blow.
        """
        async with anyio.create_task_group() as tasks:
            self._remedies = [(0.0, name, supervisor) for _, name, supervisor in self._remedies]  # all at once
            end = self._clock.monotonic() + within
            while not (calm := self._is_calm()) and not self._tree.stopping and self._clock.monotonic() < end:
                await self._let_pass(_STEP, tasks)
            tasks.cancel_scope.cancel()
        if not calm or self._tree.stopping:
            raise AssertionError(self._complaint(within))

    # -- blows

    def _strike(self, tasks: TaskGroup) -> None:
        targets = list(self._targets(self._tree.view(), ""))
        if not targets:
            return
        node, supervisor = self._chance.choice(targets)
        kind, spell = self._chance.choice(self._kinds), self._chance.random() * self._longest
        at = self._clock.monotonic() - self._began
        if kind == "crash":
            self._tree.inject_fault(node.id, StormError(f"seed {self.seed}, blow {len(self.blows)}"))
            self._struck[node.id] = self._tree.introspection.state(node.id).incarnation
            self.blows.append(Blow(at, kind, node.id))
        elif kind == "delay":
            self._orders = [one for one in self._orders if not one.done]
            self._orders.append(self._tree.introspection.suspend(node.id, timeout=spell))
            self._remedies.append((self._clock.monotonic() + spell, node.id, ""))
            self.blows.append(Blow(at, kind, node.id, spell))
        elif self._is_process(node.id) and node.pid is not None:
            os.kill(node.pid, signal.SIGKILL)
            self._struck[node.id] = self._tree.introspection.state(node.id).incarnation
            self.blows.append(Blow(at, kind, node.id))
        elif self._can_be_terminated(node.id):
            self._ask(tasks, "terminate_child", supervisor, node.id)
            self._remedies.append((self._clock.monotonic() + spell, node.id, supervisor))
            self.blows.append(Blow(at, kind, node.id, spell))

    def _targets(self, node: TreeNode, supervisor: str) -> Iterator[tuple[TreeNode, str]]:
        """Yield all that can be struck now, with who keeps them up."""
        wanted = self._actors is None or node.id in self._actors
        if node.kind == "worker" and node.status == "running" and wanted:
            yield node, supervisor
        for child in node.children:
            yield from self._targets(child, node.id)

    def _remedy(self, name: str, supervisor: str, tasks: TaskGroup) -> None:
        if supervisor:
            self._ask(tasks, "restart_child", supervisor, name)
            return
        try:
            self._orders.append(self._tree.introspection.resume(name))
        except NoSuchActor:
            return  # it has gone for good meanwhile

    def _ask(self, tasks: TaskGroup, what: str, supervisor: str, name: str) -> None:
        self._open += 1
        tasks.start_soon(partial(self._request, what, supervisor, name))

    async def _request(self, what: str, supervisor: str, name: str) -> None:
        try:
            await getattr(self._tree.supervisor(supervisor), what)(name)
        except ChildStartFailed:
            self._remedies.append((self._clock.monotonic() + 1.0, name, supervisor))
        except SupervisorError:
            return  # struck by something else meanwhile: it is being restarted already, or its supervisor is
        finally:
            self._open -= 1

    # -- time

    async def _let_pass(self, seconds: float, tasks: TaskGroup) -> None:
        """Let time go by, and take back what is over on the way."""
        end = self._clock.monotonic() + seconds
        while self._remedies:
            due, name, supervisor = min(self._remedies)
            if due > end:
                break
            self._remedies.remove((due, name, supervisor))
            await self._wait(due - self._clock.monotonic())
            self._remedy(name, supervisor, tasks)
        await self._wait(end - self._clock.monotonic())

    async def _wait(self, seconds: float) -> None:
        clock = self._clock
        if not isinstance(clock, VirtualClock):
            await clock.sleep(max(0.0, seconds))
            return
        end = clock.monotonic() + seconds
        await clock.advance(0)
        await eventually(self._processes_are_settled, _REAL)
        while (left := end - clock.monotonic()) > 0:
            await clock.advance(min(left, _STRIDE))
            await eventually(self._processes_are_settled, _REAL)

    def _processes_are_settled(self) -> bool:
        if any(not order.done and self._is_process(order.to) for order in self._orders):
            return False
        return not any(
            self._is_process(node.id)
            and (node.status in _UNDER_WAY or (node.status == "running" and self._is_to_end(node.id)))
            for node in _workers(self._tree.view())
        )

    async def _answered(self, tasks: TaskGroup) -> None:
        while self._open:
            await self._let_pass(_STEP, tasks)

    # -- calm

    def _is_calm(self) -> bool:
        return not self._remedies and not self._open and not self._restless(self._tree.view())

    def _restless(self, node: TreeNode) -> list[str]:
        own = [] if node.status in _AT_REST else [f"{node.id} is {node.status}"]
        if node.status == "running" and self._is_to_end(node.id):
            own = [f"{node.id} was struck, and runs on"]
        return [*own, *(one for child in node.children for one in self._restless(child))]

    def _is_process(self, name: str) -> bool:
        spec = self._tree.introspection.spec(name)
        return isinstance(spec, ChildSpec) and spec.isolation == "process"

    def _can_be_terminated(self, name: str) -> bool:
        """Whether it is our own to terminate, and comes back: no guest, and no temporary child."""
        spec = self._tree.introspection.spec(name)
        return isinstance(spec, ChildSpec) and spec.isolation == "task" and spec.restart != "temporary"

    def _is_to_end(self, name: str) -> bool:
        return name in self._struck and self._tree.introspection.state(name).incarnation == self._struck[name]

    def _complaint(self, within: float) -> str:
        what = "the tree has given up" if self._tree.stopping else f"not calm within {within:g} s"
        lines = [f"storm of seed {self.seed}: {what}", *self._restless(self._tree.view())]
        return "\n  ".join([*lines, "the blows were:", *map(str, self.blows)])


def _workers(node: TreeNode) -> Iterator[TreeNode]:
    if node.kind == "worker":
        yield node
    for child in node.children:
        yield from _workers(child)
