"""OTP's cases of asking a supervisor: every request in every state, counts, lists, and what is remembered."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Awaitable, Callable

import pytest

from supervisor import (
    Actor,
    AlreadyPresent,
    AlreadyStarted,
    Backoff,
    ChildRunning,
    ChildSpec,
    NoSuchChild,
    SupervisorSpec,
    SupervisorStopping,
    Tree,
    open_tree,
)
from supervisor.dynamic import dynamic_supervisor
from supervisor.testing import Gate, VirtualClock, eventually, settle
from tests.supervisor.otp.kit import How, child, counts, end, gated, lives, statuses

pytestmark = pytest.mark.anyio


async def _refused(error: type[Exception], *requests: Callable[[], Awaitable[object]]) -> None:
    for request in requests:
        with pytest.raises(error):
            await request()


async def test_child_adm() -> None:
    """Starting, terminating, restarting and deleting, in every state of a child, with the counts after each."""
    spec = child("child1")
    async with open_tree(SupervisorSpec("root", [spec], intensity=2, period=3600)) as tree:
        root, nobody = tree.supervisor("root"), tree.supervisor("foo")
        assert await counts(tree) == (1, 1, 0, 1)
        await _refused(AlreadyStarted, lambda: root.start_child(spec))
        await _refused(
            NoSuchChild, *(lambda r=r: r("hej") for r in (root.terminate_child, root.restart_child, root.delete_child))
        )
        await _refused(ChildRunning, lambda: root.restart_child("child1"), lambda: root.delete_child("child1"))
        await root.terminate_child("child1")
        assert await counts(tree) == (1, 0, 0, 1)
        await root.terminate_child("child1")
        await _refused(AlreadyPresent, lambda: root.start_child(spec))
        await root.restart_child("child1")
        assert await lives(tree) == {"child1": 2}
        assert await counts(tree) == (1, 1, 0, 1)
        await root.terminate_child("child1")
        await root.delete_child("child1")
        assert await counts(tree) == (0, 0, 0, 0)
        await _refused(NoSuchChild, lambda: root.restart_child("child1"))
        await root.start_child(spec)
        assert await counts(tree) == (1, 1, 0, 1)
        await _refused(
            SupervisorStopping,
            lambda: nobody.start_child(spec),
            lambda: nobody.terminate_child("child1"),
            lambda: nobody.delete_child("child1"),
            nobody.which_children,
            nobody.count_children,
        )


async def test_child_adm_simple() -> None:
    """A dynamic supervisor begins empty; each child has an id, and is asked for by it like any other."""
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600)) as tree:
        root = tree.supervisor("root")
        assert await counts(tree) == (0, 0, 0, 0)
        for name in ("child1", "child2"):
            await root.start_child(child(name, restart="temporary"))
        assert await counts(tree) == (2, 2, 0, 2)
        await root.terminate_child("child1")
        assert await counts(tree) == (1, 1, 0, 1)
        for request in (root.terminate_child, root.restart_child, root.delete_child):
            with pytest.raises(NoSuchChild):
                await request("child1")


async def _count_many(spec_of: Callable[[str], ChildSpec | SupervisorSpec], *, supervisors: bool) -> None:
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600)) as tree:
        root = tree.supervisor("root")
        for count in (100, 200):
            for number in range(count - 100, count):
                await root.start_child(spec_of(f"child{number}"))
            assert await counts(tree) == ((count, count, count, 0) if supervisors else (count, count, 0, count))
            assert list(await statuses(tree)) == [f"child{number}" for number in range(count)]
        for number in range(200):
            await root.terminate_child(f"child{number}")
        assert await counts(tree) == (0, 0, 0, 0)


async def test_count_children() -> None:
    """Counts agree with the list, with many children and when all have gone."""
    await _count_many(lambda id: child(id, restart="temporary"), supervisors=False)


async def test_count_children_supervisor() -> None:
    """The same where the children are supervisors."""
    await _count_many(lambda id: SupervisorSpec(id, restart="temporary"), supervisors=True)


async def test_count_restarting_children() -> None:
    """A child that is being restarted is counted, and not as active."""
    clock, gates = VirtualClock(), [Gate() for _ in range(3)]
    spec = SupervisorSpec("root", intensity=20, period=100, backoff=Backoff(first=2, factor=1, most=2, jitter=0))
    async with open_tree(spec, clock=clock) as tree:
        root = tree.supervisor("root")
        for number, gate in enumerate(gates):
            await root.start_child(gated(f"child{number}", gate))
            assert await counts(tree) == (number + 1, number + 1, 0, number + 1)
        for gate in gates[:2]:
            gate.fail_always(OSError("not now"))
        for number in range(2):
            tree.inject_fault(f"child{number}", ValueError("x"))
        await clock.advance(5)
        assert await counts(tree) == (3, 1, 0, 3)
        for gate in gates:
            gate.fail_always(None)
        await clock.advance(5)
        assert await counts(tree) == (3, 3, 0, 3)
        for number in range(3):
            await root.terminate_child(f"child{number}")
            assert await counts(tree) == (3, 2 - number, 0, 3)


async def test_which_children() -> None:
    """The list shows each child under its id with what it is doing; one that was deleted is gone."""
    async with open_tree(SupervisorSpec("root")) as tree:
        root = tree.supervisor("root")
        assert await root.which_children() == []
        await root.start_child(child("child1"))
        await root.start_child(child("child2"))
        (first, second) = await root.which_children()
        assert (first.id, first.kind, first.status, first.incarnation, first.pid) == (
            "child1",
            "worker",
            "running",
            1,
            None,
        )
        assert second.id == "child2"
        await root.terminate_child("child1")
        assert await statuses(tree) == {"child1": "stopped", "child2": "running"}
        await root.delete_child("child1")
        assert await statuses(tree) == {"child2": "running"}


async def test_which_children_simple_one_for_one() -> None:
    """The list of a dynamic supervisor is in start order, without those that have gone."""
    async with open_tree(dynamic_supervisor("root")) as tree:
        root = tree.supervisor("root")
        for name in ("child1", "child2"):
            await root.start_child(child(name, restart="temporary"))
        assert await statuses(tree) == {"child1": "running", "child2": "running"}
        await root.terminate_child("child1")
        assert await statuses(tree) == {"child2": "running"}


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("how", ["normal", "abnormal", "terminated"])
async def test_do_not_save_child_specs_for_temporary_children(how: How | str, strategy: str) -> None:
    """A temporary child that has ended may be started anew under its id; of all others the specification is there."""
    async with open_tree(SupervisorSpec("root", strategy=strategy, intensity=2, period=3600)) as tree:  # type: ignore[arg-type]
        for restart in ("permanent", "transient", "temporary"):
            spec = child(restart, restart=restart)
            await tree.supervisor("root").start_child(spec)
            if how == "terminated":
                await tree.supervisor("root").terminate_child(restart)
            else:
                await end(tree, restart, how)  # type: ignore[arg-type]
            if restart == "temporary":
                await tree.supervisor("root").start_child(spec)
                continue
            stays_away = how == "terminated" or (how == "normal" and restart == "transient")
            with pytest.raises(AlreadyPresent if stays_away else AlreadyStarted):
                await tree.supervisor("root").start_child(spec)


class _Large:
    """What a start function may hold on to."""


async def _of_a_large_start(tree: Tree, restart: str) -> weakref.ref[_Large]:
    large = _Large()

    def start(held: _Large = large) -> Actor:
        return Actor()

    await tree.supervisor("root").start_child(ChildSpec("large", start, restart=restart))  # type: ignore[arg-type]
    return weakref.ref(large)


async def test_do_not_save_start_parameters_for_temporary_children() -> None:
    """Nothing is kept of a temporary child that has ended, neither what its start function held."""
    async with open_tree(SupervisorSpec("root")) as tree:
        large = await _of_a_large_start(tree, "temporary")
        await tree.supervisor("root").terminate_child("large")
        await eventually(lambda: gc.collect() >= 0 and large() is None)


async def test_simple_one_for_one_corruption() -> None:
    """The same under a dynamic supervisor, after another child has crashed."""
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600)) as tree:
        await tree.supervisor("root").start_child(child("child1", restart="temporary"))
        await end(tree, "child1")
        large = await _of_a_large_start(tree, "temporary")
        tree.inject_fault("large", ValueError("x"))
        await settle()
        assert await counts(tree) == (0, 0, 0, 0)
        await eventually(lambda: gc.collect() >= 0 and large() is None)


async def _seconds_each(spec: SupervisorSpec, restart: str, count: int) -> float:
    begun = time.perf_counter()
    async with open_tree(spec) as tree:
        root = tree.supervisor("root")
        for number in range(count):
            await root.start_child(ChildSpec(str(number), Actor, restart=restart))  # type: ignore[arg-type]
        for number in range(count):
            await root.terminate_child(str(number))
    return (time.perf_counter() - begun) / count


async def _scales(spec: SupervisorSpec, restart: str) -> None:
    # Quadratic work would show as a factor of ten; a busy machine alone makes it two or three.
    few = min([await _seconds_each(spec, restart, 200) for _ in range(3)])
    assert await _seconds_each(spec, restart, 2_000) < 5 * few


async def test_simple_one_for_one_scale_many_temporary_children() -> None:
    """Starting and terminating a dynamic child costs about the same among ten times as many."""
    await _scales(dynamic_supervisor("root", intensity=2, period=3600), "temporary")


async def test_scale_start_stop_many_children() -> None:
    """The same of permanent children, whose specifications stay."""
    await _scales(SupervisorSpec("root", intensity=2, period=3600), "permanent")
