"""A seeded storm of crashes, ends and requests, held against a tiny model; on both loops, in every strategy."""

from __future__ import annotations

import random

import anyio
import pytest

from supervisor import (
    Actor,
    CallFailed,
    ChildSpec,
    CoolDown,
    Reason,
    SupervisorError,
    SupervisorSpec,
    Tree,
    on,
    open_tree,
)
from supervisor.testing import eventually
from tests.supervisor.helpers import Fail, Incarnation, Put, StopYourself

pytestmark = pytest.mark.anyio

NAMES = [f"c{number}" for number in range(6)]
KINDS = ["permanent", "permanent", "permanent", "transient", "transient", "temporary"]


class Witness:
    """The model: a name has one life at a time, and each message is handled at most once, in the order of sending."""

    def __init__(self) -> None:
        self.alive: dict[str, int] = {}
        self.handled: dict[str, list[int]] = {}
        self.complaints: list[str] = []
        self.calm = False

    def born(self, name: str, incarnation: int) -> None:
        if name in self.alive:
            self.complaints.append(f"{name}: {incarnation} starts beside {self.alive[name]}")
        self.alive[name] = incarnation

    def died(self, name: str) -> None:
        del self.alive[name]


class Stormy(Actor):
    def __init__(self, witness: Witness, chance: random.Random) -> None:
        self._witness = witness
        self._chance = chance

    def _unlucky(self, share: float) -> bool:
        return not self._witness.calm and self._chance.random() < share

    async def on_start(self) -> None:
        if self._unlucky(0.1):
            raise OSError("a bad start")
        self._witness.born(self.context.name, self.context.incarnation)
        self.context.spawn(self._beside)

    async def on_stop(self, reason: Reason) -> None:
        if self._unlucky(0.3):
            await anyio.sleep(self._chance.random() * 0.002)
        self._witness.died(self.context.name)
        if self._unlucky(0.1):
            raise ValueError("a bad end")

    @on(Put)
    async def _(self, message: Put) -> None:
        self._witness.handled.setdefault(self.context.name, []).append(message.value)

    @on(Fail)
    async def _(self, message: Fail) -> None:
        raise ValueError("storm")

    @on(StopYourself)
    async def _(self, message: StopYourself) -> None:
        self.context.stop()

    @on(Incarnation)
    async def _(self, message: Incarnation) -> int:
        await anyio.sleep(self._chance.random() * 0.002)
        return self.context.incarnation

    async def _beside(self) -> None:
        await anyio.sleep(self._chance.random() * 0.05)  # the weather of the storm; nothing is waited for
        if self._unlucky(0.3):
            raise KeyError("beside")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_storm(strategy: str, seed: int) -> None:
    chance = random.Random(seed)
    witness = Witness()
    children = [
        ChildSpec(name, lambda: Stormy(witness, chance), restart=kind)  # type: ignore[arg-type]
        for name, kind in zip(NAMES, KINDS, strict=True)
    ]
    inner = SupervisorSpec(
        "inner",
        children,
        strategy=strategy,  # type: ignore[arg-type]
        intensity=10,
        period=1,
        on_give_up=CoolDown(0.05),
    )
    calls: list[str] = []
    async with open_tree(SupervisorSpec("root", [inner])) as tree:
        async with anyio.create_task_group() as tasks:
            asked = 0
            for number in range(300):
                name = chance.choice(NAMES)
                match chance.randrange(8):
                    case 0:
                        tree.ref(name).cast(Fail())
                    case 1:
                        tree.ref(name).cast(StopYourself())
                    case 2:
                        asked += 1
                        tasks.start_soon(_ask, tree, name, calls)
                    case 3:
                        what = chance.choice(["terminate_child", "restart_child"])
                        tasks.start_soon(_request, tree, what, name)
                    case 4:
                        await anyio.sleep(chance.random() * 0.003)  # let some of it happen before the next blow
                    case _:
                        tree.ref(name).cast(Put(number))
        assert len(calls) == asked, "every call ended in a value or a typed error"
        witness.calm = True
        for name in NAMES[:3]:
            await _request(tree, "restart_child", name)
        # Failures that were cast before may still be waiting in mailboxes: calm comes when these are used up.
        await eventually(lambda: _is_calm(tree))
        assert {name: witness.alive[name] for name in NAMES[:3]} == {
            name: await tree.ref(name).call(Incarnation()) for name in NAMES[:3]
        }
    assert witness.complaints == []
    assert witness.alive == {}, "nothing outlives the tree"
    for name, values in witness.handled.items():
        assert values == sorted(set(values)), f"{name}: in order, and none twice"


def _status(tree: Tree, name: str) -> str:
    return next((child.status for child in tree.view().children[0].children if child.id == name), "gone")


def _is_calm(tree: Tree) -> bool:
    children = tree.view().children[0].children
    at_rest = all(child.status in ("running", "stopped") and child.mailbox == 0 for child in children)
    return at_rest and all(_status(tree, name) == "running" for name in NAMES[:3])


async def _ask(tree: Tree, name: str, calls: list[str]) -> None:
    with anyio.fail_after(10):
        try:
            await tree.ref(name).call(Incarnation(), timeout=5)
            calls.append("answered")
        except CallFailed as failure:
            calls.append(type(failure).__name__)


async def _request(tree: Tree, what: str, name: str) -> None:
    with anyio.fail_after(10):
        try:
            await getattr(tree.supervisor("inner"), what)(name)
        except SupervisorError:
            return
