"""Plays a storm to a real tree and to the model, and compares them after each step."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import anyio
from sniffio import current_async_library

from protocol.messages.common import Message
from protocol.messages.system import TreeNode
from supervisor import Actor, Shutdown, SupervisorError, on
from supervisor.reasons import Reason
from supervisor.testing import EventLog, Gate, VirtualClock
from supervisor.tree import Tree
from tests.supervisor.model.rules import Child, Supervisor
from tests.supervisor.model.storms import Op, Storm, all_names, apply, is_possible, make_storm
from tests.supervisor.model.world import Model

LONG = 200.0
"""Seconds in which everything comes to rest once the world does no more harm."""


class QuickClock(VirtualClock):
    """On asyncio anyio settles in steps of 0.1 s, for the sake of real sockets; here nothing is real."""

    async def settle(self) -> None:
        loop = asyncio.get_running_loop() if current_async_library() == "asyncio" else None
        if loop is None:
            await anyio.wait_all_tasks_blocked()
            return
        await asyncio.sleep(0)
        while loop._ready:  # type: ignore[attr-defined]
            await asyncio.sleep(0)

    def left_alone(self) -> AbstractContextManager[None]:
        """It never is: the tests move it to the very end, and count the tasks of the loop."""
        return nullcontext()


class Leave(Message, frozen=True):
    """End by yourself."""

    cleanly: str


class Stage:
    """Where the workers of one storm appear, and who holds their doors."""

    def __init__(self) -> None:
        self.gates: defaultdict[str, Gate] = defaultdict(Gate)
        self.failures: defaultdict[str, int] = defaultdict(int)
        self.alive: dict[str, int] = {}
        self.overlaps: list[str] = []

    def make(self, name: str) -> Callable[[], Actor]:
        return lambda: Puppet(self, name)

    async def pass_start(self, name: str) -> None:
        await self.gates[name].pass_start()
        if self.failures[name]:
            self.failures[name] -= 1
            raise OSError("a bad start")

    def enter(self, name: str, incarnation: int) -> None:
        if name in self.alive:
            self.overlaps.append(f"{name}: {incarnation} starts beside {self.alive[name]}")
        self.alive[name] = incarnation


class Puppet(Actor):
    def __init__(self, stage: Stage, name: str) -> None:
        self._stage, self._name = stage, name

    async def on_start(self) -> None:
        self._stage.enter(self._name, self.context.incarnation)
        with ExitStack() as failed:
            failed.callback(self._stage.alive.pop, self._name)
            await self._stage.pass_start(self._name)
            failed.pop_all()

    async def on_stop(self, reason: Reason) -> None:
        try:
            await self._stage.gates[self._name].stop_gate.wait()
        finally:
            del self._stage.alive[self._name]

    @on(Leave)
    async def _(self, message: Leave) -> None:
        self.context.stop() if message.cleanly == "normal" else self.context.stop(Shutdown("my own wish"))


class Disagreement(AssertionError):
    """The tree did what the model did not."""


class Tie(Exception):
    """From here on the model cannot tell."""


class Play:
    def __init__(self, storm: Storm, stage: Stage) -> None:
        self.storm, self.stage = storm, stage
        self.clock = QuickClock()
        self.model = Model(storm.spec)
        self.tree = Tree(storm.spec, self.clock, "root")
        self.refs = {name: self.tree.ref(name) for name in all_names(storm)}
        self.log = EventLog(self.tree.stream, ["lifecycle"])
        self.asked: list[tuple[Any, list[str]]] = []

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            try:
                await self.tree.boot()
                await self.clock.settle()
                self._compare("boot")
                for number, op in enumerate(self.storm.ops):
                    await self._do(tasks, op, f"{number}: {op[:2]}")
                for name in self.refs:
                    for op in (("fail", name, 0), ("open", name), ("release", name)):
                        await self._do(tasks, op, f"finally {op}")
                await self._do(tasks, ("advance", LONG), "at rest")
                await self._end(tasks)
            finally:
                await self._let_go()
                tasks.cancel_scope.cancel()

    async def _let_go(self) -> None:
        """End the tree, wherever the play was broken off: behind a held door it would hold up the event loop's end."""
        for gate in self.stage.gates.values():
            gate.open()
            gate.stop_gate.set()
        self.tree.request_shutdown("the play is over")
        await self.clock.advance(LONG)

    async def _end(self, tasks: anyio.abc.TaskGroup) -> None:
        supervisors = self.model.supervisors()
        order = {
            name: [child.spec.id for child in one.children.values() if child.life] for name, one in supervisors.items()
        }
        seen = len(self.log.read())
        await self._do(tasks, ("stop",), "the end")
        ends = [entry for entry in self.log.read()[seen:] if entry["event"] == "exited"]
        for name, children in order.items():
            stopped = [entry["actor"] for entry in ends if entry["supervisor"] == name]
            if supervisors[name].spec.dynamic:
                stopped, children = sorted(stopped), sorted(children, reverse=True)
            if stopped != children[::-1]:
                raise Disagreement(f"{name} started {children} and stopped {stopped}")
        report = await self.tree.wait()
        if self.stage.alive or report.exit_code != self.model.code():
            raise Disagreement(f"left alive: {self.stage.alive}, {report}, not {self.model.code()}")

    async def _do(self, tasks: anyio.abc.TaskGroup, op: Op, where: str) -> None:
        if not is_possible(self.model, op):
            return
        gate = self.stage.gates[op[1]] if len(op) > 1 and isinstance(op[1], str) else Gate()
        answer: list[str] = []
        match op:
            case ("advance", seconds):
                await self.clock.advance(seconds)
            case ("crash", name):
                self.tree.inject_fault(name, ValueError("storm"))
            case ("exit", name, how):
                self.refs[name].cast(Leave(how))
            case ("shut", _):
                gate.shut()
            case ("open", _):
                gate.open()
            case ("fail", name, count):
                self.stage.failures[name] = count
            case ("hold", _):
                if gate.stop_gate.is_set():
                    gate.hold_stop()
            case ("release", _):
                gate.stop_gate.set()
            case ("stop",):
                self.tree.request_shutdown("the storm")
            case (what, supervisor, argument):
                tasks.start_soon(self._ask, what, supervisor, argument, answer)
        await self.clock.settle()
        request = apply(self.model, op)
        if request is not None:
            self.asked.append((request, answer))
        self._compare(where)

    async def _ask(self, what: str, supervisor: str, argument: object, answer: list[str]) -> None:
        try:
            await getattr(self.tree.supervisor(supervisor), what)(argument)
            answer.append("ok")
        except SupervisorError as error:
            answer.append(type(error).__name__)

    def _compare(self, where: str) -> None:
        if self.model.tied:
            raise Tie
        real = self._real()
        wanted = self._wanted()
        for key, value in wanted.items():
            if real[key] != value:
                raise Disagreement(f"after {where}, {key}:\n{_difference(value, real[key])}")
        if self.stage.overlaps:
            raise Disagreement(f"after {where}: {self.stage.overlaps}")

    def _real(self) -> dict[str, object]:
        return {
            "events": self._by_supervisor(
                (entry["supervisor"], entry["event"], entry["actor"], entry["incarnation"], _detail(entry))
                for entry in self.log.read()
            ),
            "statuses": _node(self.tree.view()),
            "incarnations": {name: ref.cell.incarnation for name, ref in self.refs.items()},
            "answers": [answer[0] if answer else "waits" for _, answer in self.asked],
        }

    def _wanted(self) -> dict[str, object]:
        return {
            "events": self._by_supervisor(self.model.told),
            "statuses": self._child(self.model.root),
            "incarnations": {name: self.model.numbers.get(name, 0) for name in self.refs},
            "answers": [request.answer for request, _ in self.asked],
        }

    def _child(self, child: Child) -> tuple[object, ...]:
        below = list(child.life.children.values()) if isinstance(child.life, Supervisor) else []
        return (child.spec.id, child.status, child.restarts, [self._child(one) for one in below])

    def _by_supervisor(self, told: Any) -> dict[object, list[tuple[object, ...]]]:
        """What each supervisor did, in order. Between two supervisors there is none, nor among dynamic children that
        end together."""
        several: dict[object, list[tuple[object, ...]]] = {}
        for supervisor, *what in told:
            several.setdefault(supervisor, []).append(tuple(what))
        for supervisor in self.storm.dynamic & several.keys():
            runs = itertools.groupby(several[supervisor], key=lambda what: what[0])
            several[supervisor] = [what for _, run in runs for what in sorted(run, key=repr)]
        return several


def _detail(entry: dict[str, Any]) -> object:
    if entry["event"] == "exited":
        return entry["reason"].split(":")[0]
    return entry.get("delay")


def _difference(model: object, tree: object) -> str:
    if isinstance(model, dict) and isinstance(tree, dict):
        keys = [key for key in {**model, **tree} if model.get(key) != tree.get(key)]
        return "\n".join(f"  of {key}:\n{_difference(model.get(key), tree.get(key))}" for key in keys)
    if isinstance(model, list) and isinstance(tree, list):
        same = next((n for n, (one, two) in enumerate(zip(model, tree, strict=False)) if one != two), None)
        same = min(len(model), len(tree)) if same is None else same
        model, tree = model[max(0, same - 2) :], tree[max(0, same - 2) :]
    return f"    model {model}\n    tree  {tree}"


def _node(node: TreeNode) -> tuple[object, ...]:
    return (node.id, node.status, node.restarts, [_node(one) for one in node.children])


async def _play(storm: Storm, stage: Stage) -> None:
    await Play(storm, stage).run()


def play(chance: random.Random, backend: str) -> bool:
    """Make a storm and play it. False: it could be compared for a part only."""
    stage = Stage()
    storm = make_storm(chance, stage.make)
    whole = True
    try:
        anyio.run(_play, storm, stage, backend=backend)
    except* Tie:
        whole = False
    except* Disagreement as group:
        raise Disagreement(f"{group.exceptions[0]}\n{storm}") from None
    return whole
