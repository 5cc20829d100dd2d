"""A start that is given up in the very moment in which its process is there: the process ends at once, and only it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from supervisor import hosts
from supervisor.host_protocol import Forked
from supervisor.hosting import ProcessHost
from supervisor.reasons import Shutdown
from supervisor.testing import EventLog
from tests.supervisor.conformance.kit import Plan
from tests.supervisor.fault_actors import faulty
from tests.supervisor.process_actors import WhoAreYou
from tests.supervisor.processes import next_life, tree_of

pytestmark = pytest.mark.anyio


class Watched(ProcessHost):
    """Says when a child is there, before anybody else knows."""

    on_answer: Callable[[], None] = staticmethod(lambda: None)
    on_fork: Callable[[], None] = staticmethod(lambda: None)

    async def _read(self) -> None:
        await super()._read()
        if self._answers:
            self.on_answer()
            await anyio.lowlevel.checkpoint()

    async def fork(self) -> tuple[socket.socket, Forked]:
        forked = await super().fork()
        self.on_fork()
        return forked


async def test_a_fork_that_is_given_up_when_it_is_done_leaves_nothing_to_remember() -> None:
    host = Watched((), {})
    try:
        for _ in range(3):
            with anyio.CancelScope() as scope:
                host.on_answer = scope.cancel
                await host.fork()
            assert scope.cancelled_caught
            await host.settle()
            assert not (host._answers or host._ends or host._given_up or host._unended)
    finally:
        await host.end()


async def test_a_child_that_is_killed_when_it_has_just_been_forked_does_not_cost_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "ProcessHost", Watched)
    plan = Plan({}, {"at_start": "lock up"})  # which does not notice the end of its link
    async with tree_of(faulty(arguments=plan)) as tree:
        log, child = EventLog(tree.stream), tree._runtime.children["Faulty"]
        before = await tree.ref("Faulty").call(WhoAreYou())

        def kill() -> None:
            if child.cell.incarnation == 2 and child.incarnation is not None:
                child.incarnation.kill(Shutdown("not any more"))

        monkeypatch.setattr(Watched, "on_fork", staticmethod(kill))
        os.kill(before["pid"], signal.SIGKILL)
        exited = await log.wait_for(event="exited", actor="Faulty", count=2)
        assert exited["reason"] == "shutdown: not any more"
        assert (await next_life(tree.ref("Faulty"), 2))["parent"] == before["parent"]
