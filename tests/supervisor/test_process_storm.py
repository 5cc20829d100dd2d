"""Children and hosts are killed at random under traffic: everything comes back, no call hangs, nothing is left."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress

import anyio
import pytest

from supervisor import CallFailed, CallTimeout, MailboxFull, NotRunning, SupervisorSpec, Tree, custody, open_tree
from supervisor.spec import Strategy
from tests.supervisor.process_actors import Add, Ask, Noted, Sleep, Tell
from tests.supervisor.processes import process_child, task_child

pytestmark = pytest.mark.anyio

STRIKES = 15


class Storm:
    def __init__(self, tree: Tree, seed: int) -> None:
        self.tree = tree
        self.chance = random.Random(seed)
        self.over = False
        self.answered = 0
        self.failed = 0
        self.hung = 0

    async def call(self, name: str) -> None:
        while not self.over:
            request = self.chance.choice([Add(1, 2), Ask("Peer", 1, 2), Noted(), Sleep(0.001)])
            try:
                await self.tree.ref(name).call(request, timeout=10)
                self.answered += 1
            except CallTimeout:
                self.hung += 1
            except CallFailed:
                self.failed += 1
                await anyio.sleep(0.002)  # the load of the storm, as below: nothing is waited for

    async def cast(self, name: str) -> None:
        while not self.over:
            with suppress(MailboxFull):
                self.tree.ref(name).cast(Tell("Peer", 1))
            await anyio.sleep(0.002)

    async def strike(self) -> None:
        for _ in range(STRIKES):  # at any moment, so that each finds the processes in another state
            await anyio.sleep(self.chance.random() * 0.2)
            targets = custody.descendants(os.getpid())
            if targets and self.chance.random() < 0.8:
                custody.send(self.chance.choice(targets), signal.SIGKILL)
            else:
                with suppress(NotRunning):
                    self.tree.inject_fault(self.chance.choice("AB"), ValueError("struck"))
        self.over = True


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
@pytest.mark.parametrize("seed", [1])
async def test_a_storm(seed: int, strategy: Strategy) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    pair = SupervisorSpec("pair", [process_child("A"), process_child("B")], strategy=strategy, intensity=100_000)
    async with open_tree(SupervisorSpec("root", [task_child("Peer"), pair])) as tree:
        storm = Storm(tree, seed)
        async with anyio.create_task_group() as tasks:
            for name in "AB":
                tasks.start_soon(storm.cast, name)
                for _ in range(3):
                    tasks.start_soon(storm.call, name)
            await storm.strike()
        with anyio.fail_after(10):
            for name in "AB":
                while True:
                    try:
                        assert await tree.ref(name).call(Ask("Peer", 1, 2)) == 3
                        break
                    except CallFailed:
                        await anyio.sleep(0.01)
        assert storm.hung == 0
        assert storm.answered > 0
        assert storm.failed > 0, "nothing was ever struck"
    assert custody.descendants(os.getpid()) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
