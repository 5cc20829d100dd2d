"""The tree and the scenarios for ``test_cancelled_anywhere.py``, and what must hold after each."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import anyio
import anyio.lowlevel

from protocol.messages.common import Message, Request
from supervisor import (
    Actor,
    Backoff,
    CallFailed,
    ChildSpec,
    Mailbox,
    Reason,
    Reply,
    SupervisorError,
    SupervisorSpec,
    Tree,
    TreeStartFailed,
    dynamic_supervisor,
    on,
    on_deferred,
    open_tree,
)
from tests.supervisor.model.playing import QuickClock
from tests.supervisor.stepping import Points

BOUND = 2
PATIENCE = 400.0
"""Seconds, on the virtual clock, in which everything is over or at rest; no scenario has half as many."""
WORKERS = ("first", "a", "b", "c")


class Put(Message, frozen=True):
    value: int


class Kept(Request[list[int]], frozen=True):
    pass


class Later(Request[int], frozen=True):
    """Answered in a second."""


class Answer(Message, frozen=True):
    pass


class Slow(Request[int], frozen=True):
    """Takes two seconds."""


class Worker(Actor):
    """Gives way wherever an actor may: starting, handling, stopping, and beside its mailbox."""

    mailbox: ClassVar[Mailbox] = Mailbox(bound=BOUND)

    def __init__(self, world: World) -> None:
        self.world = world
        self.values: list[int] = []
        self.tokens: list[Reply[int]] = []

    async def on_start(self) -> None:
        name = self.context.name
        assert name not in self.world.alive, "two incarnations at once"
        self.world.alive.add(name)
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.world.alive.remove(name)
            raise
        self.context.spawn(self._beside)

    async def on_stop(self, reason: Reason) -> None:
        try:
            await self.context.clock.sleep(0.5)
        finally:
            self.world.alive.remove(self.context.name)

    async def _beside(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()

    @on(Put)
    async def _(self, message: Put) -> None:
        assert len(self.context.self_ref.cell.queue) <= BOUND
        self.world.handled[message.value] += 1
        await self.context.clock.sleep(0.25)
        self.values.append(message.value)

    @on(Kept)
    async def _(self, message: Kept) -> list[int]:
        return self.values

    @on(Slow)
    async def _(self, message: Slow) -> int:
        await self.context.clock.sleep(2)
        return 2

    @on_deferred(Later)
    async def _(self, message: Later, reply: Reply[int]) -> None:
        self.tokens.append(reply)
        self.context.after(1, Answer())

    @on(Answer)
    async def _(self, message: Answer) -> None:
        self.tokens.pop(0).send(1)


Script = Callable[["World", Tree], Awaitable[None]]


class World:
    """One run of one scenario, in which something is done at one scheduling point."""

    def __init__(self, script: Script, number: int, how: str, *, whole: bool = False) -> None:
        acts = {"caller": self._cancel_caller, "tree": self._cancel_tree, "task": self._fell}
        self.points = Points(number, acts[how])
        self._interferes = how == "task"
        self.clock = QuickClock()
        self.alive: set[str] = set()
        self.handled: Tally[int] = Tally()
        self.begun: list[int] = []
        self.said: set[int] = set()
        """Those of which somebody knows that they were queued."""
        self.trouble: BaseException | None = None
        self._script = script
        self._whole = whole
        self._caller = anyio.CancelScope()
        self._tree = anyio.CancelScope()
        self._over = False

    def spec(self) -> SupervisorSpec:
        def worker(id: str) -> ChildSpec:
            return ChildSpec(id, lambda: Worker(self))

        backoff = Backoff(first=1, factor=1, most=1, jitter=0)
        group = SupervisorSpec(
            "group", [worker(id) for id in "abc"], strategy="rest_for_one", backoff=backoff, intensity=4, period=60
        )
        return SupervisorSpec("root", [worker("first"), group, dynamic_supervisor("pool")], intensity=9)

    async def play(self) -> int:
        """Play it, and return how many scheduling points there were up to where something was done."""
        with self.points.of_all_tasks():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.points.drive, self._life())
                for _ in range(int(PATIENCE)):
                    if self._over:
                        break
                    await self.clock.advance(1)
                else:
                    raise AssertionError(f"hangs: {sorted(self.points.living.values())}")
            await self.clock.settle()
            assert self.points.living == {}, "tasks are left"
            assert self.alive == set(), "actors are left"
        if self.trouble is not None:
            raise self.trouble
        return self.points.count

    async def _life(self) -> None:
        try:
            with self._tree:
                self.points.on = self._whole
                async with open_tree(self.spec(), clock=self.clock) as tree:
                    self.tree = tree
                    with self._caller:
                        self.points.on = True
                        await self._play_script(tree)
                    self.points.on = self._whole
                    if not tree.stopping:
                        await self._works(tree)
        except TreeStartFailed:
            pass
        except AssertionError as error:
            self.trouble = error
        finally:
            self.points.on = False
            self._over = True
            if hasattr(self, "tree"):
                self._nothing_waits(self.tree)

    async def _play_script(self, tree: Tree) -> None:
        """Where a stranger interferes, what is asked of an actor or a supervisor may be refused; else it may not."""
        try:
            await self._script(self, tree)
        except* (CallFailed, SupervisorError):
            if not self._interferes:
                raise

    # -- what is done

    def _cancel_caller(self) -> None:
        self._caller.cancel()

    def _cancel_tree(self) -> None:
        self._tree.cancel()

    def _fell(self) -> None:
        """Somebody who has no business there cancels the very task that runs."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    # -- what must hold

    async def _works(self, tree: Tree) -> None:
        """Everything is at rest and as it should be, or can be brought there."""
        with anyio.CancelScope(shield=True):
            self.points.on = False
            await self.clock.sleep(100)
            if tree.stopping:
                return
            for supervisor, children in (("group", "abc"), ("root", ("first",))):
                handle = tree.supervisor(supervisor)
                known = {child.id: child.status for child in await handle.which_children()}
                for id in children:
                    if id not in known:
                        await handle.start_child(next(one for one in self.spec().children[1].children if one.id == id))  # type: ignore[union-attr]
                    elif known[id] == "stopped":
                        await handle.restart_child(id)
                    else:
                        assert known[id] == "running", known
            for id in WORKERS:
                values = await tree.ref(id).call(Kept())
                assert values == sorted(values, key=self.begun.index), "in the order in which they were said"
            for supervisor in self._runtime(tree).supervisors.values():
                assert not supervisor.busy and not supervisor.requests and not supervisor.exits, supervisor.spec.id
                assert not supervisor.pending
            self._nothing_waits(tree)
            assert {number: times for number, times in self.handled.items() if times > 1} == {}
            lost = self.said - self.handled.keys()
            assert len(lost) <= sum(tree.dead_letters.values()), f"lost: {lost}, dead: {tree.dead_letters}"

    def _nothing_waits(self, tree: Tree) -> None:
        runtime = self._runtime(tree)
        assert runtime.asking == {}
        assert runtime.stuck == {}
        registry = runtime.registry
        assert [call.to for _, _, call in registry._deadlines._heap if not call.done] == []  # type: ignore[attr-defined]
        for cell in (registry.cell(id) for id in WORKERS):
            assert not cell.senders, cell.name
            assert not cell.queue, cell.name
            assert cell.phase in (0, 5), cell.name

    def _runtime(self, tree: Tree) -> Any:
        return tree._runtime

    # -- for scripts

    def cast(self, ref: Any, value: int) -> None:
        self.begun.append(value)
        ref.cast(Put(value))
        self.said.add(value)

    async def send(self, ref: Any, value: int) -> None:
        self.begun.append(value)
        await ref.send(Put(value))
        self.said.add(value)


async def talking(world: World, tree: Tree) -> None:
    a = tree.ref("a")
    waiting = a.request(Later(), timeout=30)
    for value in range(5):
        await world.send(a, value)
    assert await tree.ref("b").call(Kept()) == []
    try:
        await tree.ref("nobody").call(Kept())
    except CallFailed:
        await waiting
    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(_call, tree, name)
        await world.clock.sleep(0.5)  # both are busy now
        for value in range(10, 15):
            tasks.start_soon(world.send, a, value)
        await world.send(tree.ref("b"), 20)


async def _call(tree: Tree, name: str) -> None:
    try:
        assert await tree.ref(name).call(Slow(), timeout=30) == 2
    except CallFailed:
        return


async def crashing(world: World, tree: Tree) -> None:
    """b and c fall, with letters in their mailboxes."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_call, tree, "c")
        await world.clock.sleep(0.1)
        for value in range(BOUND):
            world.cast(tree.ref("c"), value)
        tasks.start_soon(world.send, tree.ref("c"), 10)
        tree.inject_fault("b", ValueError("x"))
    while True:
        try:
            await tree.ref("c").call(Kept())
            return
        except CallFailed:
            await world.clock.sleep(0.25)


async def asking(world: World, tree: Tree) -> None:
    group = tree.supervisor("group")
    await group.terminate_child("b")
    await group.restart_child("b")
    await group.renew_child("a")
    await group.terminate_child("c")
    await group.delete_child("c")
    await group.start_child(ChildSpec("c", lambda: Worker(world)))


async def coming_and_going(world: World, tree: Tree) -> None:
    """Dynamic children, all ended at once, and started again."""
    pool, root = tree.supervisor("pool"), tree.supervisor("root")
    for _ in range(3):
        await pool.start_numbered(ChildSpec("w", lambda: Worker(world)))
    await pool.terminate_child("w.2")
    await root.terminate_child("pool")
    await root.restart_child("pool")


async def stopping(world: World, tree: Tree) -> None:
    await tree.supervisor("pool").start_numbered(ChildSpec("w", lambda: Worker(world)))
    tree.inject_fault("b", ValueError("x"))
    await world.clock.sleep(0.75)
    tree.request_shutdown("enough")
    await tree.wait()
