"""OTP's cases of restart strategies: who lives, who is new, and that one restart too many ends the supervisor."""

from __future__ import annotations

import asyncio

import anyio.lowlevel
import pytest

from supervisor import (
    AlreadyPresent,
    Backoff,
    ChildRestarting,
    ChildSpec,
    Shutdown,
    SupervisorSpec,
    Tree,
    open_tree,
)
from supervisor.dynamic import dynamic_supervisor
from supervisor.testing import EventLog, Gate, VirtualClock, settle
from tests.supervisor.otp.kit import child, counts, end, ends, gated, lives, statuses

pytestmark = pytest.mark.anyio

EVERY_SECOND = Backoff(first=1, factor=1, most=1, jitter=0)


async def _gave_up(tree: Tree) -> None:
    """The supervisor has ended by itself, as one that shuts down."""
    report = await tree.wait()
    assert isinstance(report.reason, Shutdown)
    assert report.exit_code == 1


async def _escalates(strategy: str, first: ChildSpec, gate: Gate, then: ChildSpec, crashing: str) -> None:
    """One of the two cannot be started again; the other goes down with the supervisor."""
    spec = SupervisorSpec("root", [first, then], strategy=strategy, intensity=4, period=3600)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        gate.fail_always(OSError("no restart"))
        tree.inject_fault(crashing, ValueError("x"))
        await _gave_up(tree)
        assert gate.starts == 1 + 4, "each attempt counts"
        assert log.read(event="exited", actor=first.id)
        assert log.read(event="exited", actor=then.id)


async def test_one_for_one() -> None:
    """Only the child that ended is started again, and the limit is one for all children."""
    async with open_tree(SupervisorSpec("root", [child("child1"), child("child2")], intensity=2, period=3600)) as tree:
        await end(tree, "child1")
        assert await lives(tree) == {"child1": 2, "child2": 1}
        assert await counts(tree) == (2, 2, 0, 2)
        await end(tree, "child2")
        await end(tree, "child1")
        await _gave_up(tree)


async def test_one_for_one_escalation() -> None:
    """A child that cannot be started again takes its supervisor and its siblings down."""
    gate = Gate()
    await _escalates("one_for_one", gated("child1", gate), gate, child("child2"), "child1")


async def test_one_for_all() -> None:
    """All children are started again with the one that ended."""
    spec = SupervisorSpec("root", [child("child1"), child("child2")], strategy="one_for_all", intensity=2, period=3600)
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        await end(tree, "child1")
        assert await lives(tree) == {"child1": 2, "child2": 2}
        assert ends(log, "child2") == ["shutdown: child1 is restarted"]
        assert await counts(tree) == (2, 2, 0, 2)
        await end(tree, "child1")
        await end(tree, "child2")
        await _gave_up(tree)


async def test_one_for_all_escalation() -> None:
    """A sibling that cannot be started again ends the supervisor, too."""
    gate = Gate()
    await _escalates("one_for_all", child("child1"), gate, gated("child2", gate), "child1")


async def _other_child_fails(strategy: str) -> tuple[Gate, Gate]:
    """``child1`` ends; it is let start again, and ``child2`` is not, once."""
    first, second = Gate(), Gate()
    children = [gated("child1", first), gated("child2", second)]
    async with open_tree(SupervisorSpec("root", children, strategy=strategy, intensity=3, period=3600)) as tree:  # type: ignore[arg-type]
        second.shut()
        tree.inject_fault("child1", ValueError("die"))
        await settle()
        assert await statuses(tree) == {"child1": "running", "child2": "starting"}
        second.fail_next(OSError("not yet"))
        second.open()
        await settle()
        assert await statuses(tree) == {"child1": "running", "child2": "running"}
    return first, second


async def test_one_for_all_other_child_fails_restart() -> None:
    """When another child fails to start, the one just started goes down again, and all begin anew."""
    first, second = await _other_child_fails("one_for_all")
    assert (first.starts, second.starts) == (3, 3)
    assert [type(reason).__name__ for reason in first.stops] == ["Crash", "Shutdown", "Shutdown"]


async def test_rest_for_one() -> None:
    """The child that ended and those after it are started again; those before it do not notice."""
    children = [child("child1"), child("child2"), child("child3")]
    async with open_tree(SupervisorSpec("root", children, strategy="rest_for_one", intensity=2, period=3600)) as tree:
        await end(tree, "child2")
        assert await lives(tree) == {"child1": 1, "child2": 2, "child3": 2}
        assert await counts(tree) == (3, 3, 0, 3)
        await end(tree, "child3")
        assert await lives(tree) == {"child1": 1, "child2": 2, "child3": 3}
        await end(tree, "child2")
        await _gave_up(tree)


async def test_rest_for_one_escalation() -> None:
    """A later child that cannot be started again ends the supervisor."""
    gate = Gate()
    await _escalates("rest_for_one", child("child1"), gate, gated("child2", gate), "child1")


async def test_rest_for_one_other_child_fails_restart() -> None:
    """When a later child fails to start, the one just started before it is left alone."""
    first, second = await _other_child_fails("rest_for_one")
    assert (first.starts, second.starts) == (2, 3)


async def test_simple_one_for_one() -> None:
    """Dynamic children are started again one by one, under one limit."""
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600)) as tree:
        for name in ("child1", "child2"):
            await tree.supervisor("root").start_child(child(name))
        await end(tree, "child1")
        assert await lives(tree) == {"child1": 2, "child2": 1}
        assert await counts(tree) == (2, 2, 0, 2)
        await end(tree, "child2")
        await end(tree, "child1")
        await _gave_up(tree)


async def test_simple_one_for_one_escalation() -> None:
    """A dynamic child that cannot be started again ends its supervisor with all others."""
    gate = Gate()
    async with open_tree(dynamic_supervisor("root", intensity=4, period=3600)) as tree:
        log = EventLog(tree.stream)
        await tree.supervisor("root").start_child(gated("child1", gate))
        await tree.supervisor("root").start_child(child("child2"))
        gate.fail_always(OSError("no restart"))
        tree.inject_fault("child1", ValueError("x"))
        await _gave_up(tree)
        assert ends(log, "child2")[0].startswith("shutdown")  # type: ignore[union-attr]


async def test_tree() -> None:
    """Only what failed is started again, on each level; children that came at run time end with their supervisor."""
    gate = Gate()
    middle = [
        SupervisorSpec("sup1", [child("child1"), child("child2")], intensity=4, period=3600),
        SupervisorSpec("sup2", intensity=4, period=3600),
        SupervisorSpec("sup3", intensity=4, period=3600, restart="transient"),
    ]
    async with open_tree(SupervisorSpec("root", middle, strategy="one_for_all", intensity=4, period=3600)) as tree:
        await tree.supervisor("root").terminate_child("sup3")
        assert await counts(tree) == (3, 2, 3, 0)
        await tree.supervisor("sup2").start_child(gated("child3", gate))
        await tree.supervisor("sup2").start_child(child("child4"))
        await end(tree, "child4")
        assert await lives(tree, "sup1") == {"child1": 1, "child2": 1}
        assert await lives(tree, "sup2") == {"child3": 1, "child4": 2}
        gate.fail_always(OSError("no restart"))
        tree.inject_fault("child3", ValueError("x"))
        await settle()
        assert await counts(tree) == (3, 3, 3, 0), "one_for_all starts the one that was stopped by hand, too"
        assert await lives(tree, "sup1") == {"child1": 2, "child2": 2}
        assert await counts(tree, "sup2") == (0, 0, 0, 0)
        assert await counts(tree, "sup3") == (0, 0, 0, 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_simple_global_supervisor() -> None:
    """Names are free again after each way of ending: a killed supervisor, a killed or ended worker, one by hand."""
    middle = SupervisorSpec("sup2", [child("server")], strategy="one_for_all", intensity=3, period=60)
    async with open_tree(SupervisorSpec("root", [middle], strategy="one_for_all", intensity=3, period=60)) as tree:
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "sup2"]
        task.cancel()
        await settle()
        assert await lives(tree) == {"sup2": 2}
        assert await lives(tree, "sup2") == {"server": 2}
        await end(tree, "server")
        await end(tree, "server", "normal")
        assert await lives(tree, "sup2") == {"server": 4}
        await tree.supervisor("sup2").terminate_child("server")
        await tree.supervisor("sup2").restart_child("server")
        assert await lives(tree, "sup2") == {"server": 5}


async def test_hanging_restart_loop() -> None:
    """Between two failing attempts the supervisor answers, ends the restart on request, and can be stopped."""
    clock, gate = VirtualClock(), Gate()
    spec = SupervisorSpec("root", [gated("child1", gate)], intensity=8, period=10, backoff=EVERY_SECOND)
    async with open_tree(spec, clock=clock) as tree:
        root = tree.supervisor("root")
        gate.fail_always(OSError("still not"))
        tree.inject_fault("child1", ValueError("x"))
        await settle()
        await clock.advance(2)
        assert gate.starts == 3
        with pytest.raises(AlreadyPresent):
            await root.start_child(gated("child1", gate))
        with pytest.raises(ChildRestarting):
            await root.restart_child("child1")
        with pytest.raises(ChildRestarting):
            await root.delete_child("child1")
        assert await statuses(tree) == {"child1": "restarting"}
        assert await counts(tree) == (1, 0, 0, 1)
        await root.terminate_child("child1")
        assert await statuses(tree) == {"child1": "stopped"}
        await clock.advance(10)
        assert gate.starts == 3, "the pending attempt is gone"
        gate.fail_always(None)
        await root.restart_child("child1")
        gate.fail_always(OSError("still not"))
        tree.inject_fault("child1", ValueError("x"))
        await settle()
    assert gate.starts == 4


async def test_hanging_restart_loop_rest_for_one() -> None:
    """The same with siblings: those before go on. Unlike in OTP, ending the restart starts those that waited for it."""
    clock, gate = VirtualClock(), Gate()
    children = [child("child1"), gated("child2", gate), child("child3")]
    spec = SupervisorSpec("root", children, strategy="rest_for_one", intensity=8, period=10, backoff=EVERY_SECOND)
    async with open_tree(spec, clock=clock) as tree:
        root = tree.supervisor("root")
        gate.fail_always(OSError("still not"))
        tree.inject_fault("child2", ValueError("x"))
        await settle()
        await clock.advance(2)
        for request in (root.restart_child, root.delete_child):
            with pytest.raises(ChildRestarting):
                await request("child2")
        with pytest.raises(ChildRestarting):
            await root.restart_child("child3")
        assert await statuses(tree) == {"child1": "running", "child2": "restarting", "child3": "waiting"}
        assert await counts(tree) == (3, 1, 0, 3)
        await root.terminate_child("child2")
        await settle()
        assert await statuses(tree) == {"child1": "running", "child2": "stopped", "child3": "running"}
        gate.fail_always(None)
        await root.restart_child("child2")
        gate.fail_always(OSError("still not"))
        tree.inject_fault("child2", ValueError("x"))
        await settle()
        assert (await lives(tree))["child1"] == 1


async def test_hanging_restart_loop_simple() -> None:
    """The same of a dynamic child, whose siblings do not notice."""
    gate = Gate()
    async with open_tree(dynamic_supervisor("root", intensity=1_000_000, period=1)) as tree:
        root = tree.supervisor("root")
        await root.start_child(gated("child1", gate, restart="permanent"))
        await root.start_child(child("child2"))
        gate.fail_always(OSError("still not"))
        tree.inject_fault("child1", ValueError("x"))
        while gate.starts < 10:
            await anyio.lowlevel.checkpoint()
        assert (await counts(tree))[0] == 2
        await root.terminate_child("child1")
        assert await statuses(tree) == {"child1": "stopped", "child2": "running"}
        gate.fail_always(None)
        await root.restart_child("child1")
        gate.fail_always(OSError("still not"))
        tree.inject_fault("child1", ValueError("x"))
        while gate.starts < 30:
            await anyio.lowlevel.checkpoint()
        assert (await lives(tree))["child2"] == 1
