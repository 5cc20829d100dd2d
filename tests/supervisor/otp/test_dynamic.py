"""What Elixir's suite holds a dynamic supervisor to, beyond OTP's cases of ``simple_one_for_one``."""

from __future__ import annotations

from typing import Any

import anyio.lowlevel
import pytest

from supervisor import (
    Actor,
    ChildSpec,
    ChildStartFailed,
    NoSuchChild,
    Reason,
    SpecError,
    SupervisorSpec,
    TooManyChildren,
    open_tree,
)
from supervisor.dynamic import dynamic_supervisor
from supervisor.testing import EventLog, Gate, VirtualClock, settle
from tests.supervisor.otp.kit import (
    EVERY_END,
    Declining,
    Failing,
    How,
    Sleeper,
    child,
    counts,
    end,
    ends,
    gated,
    lives,
    statuses,
)
from tests.supervisor.processes import process_child

pytestmark = pytest.mark.anyio


async def test_can_be_supervised_directly() -> None:
    """A dynamic supervisor stands in another's list like any child, more than one if need be."""
    async with open_tree(SupervisorSpec("root", [dynamic_supervisor("one"), dynamic_supervisor("two")])) as tree:
        assert await statuses(tree) == {"one": "running", "two": "running"}
        await tree.supervisor("root").start_child(dynamic_supervisor("three"))
        await tree.supervisor("three").start_child(child("a"))
        assert await counts(tree, "one") == (0, 0, 0, 0)
        assert await counts(tree, "three") == (1, 1, 0, 1)


@pytest.mark.parametrize("bad", [{"intensity": -1}, {"period": 0}, {"max_children": -1}, {"restart": "unknown"}])
def test_start_link_with_non_ok_init(bad: dict[str, Any]) -> None:
    """Senseless settings are refused by name."""
    (key,) = bad
    with pytest.raises(SpecError, match=key):
        dynamic_supervisor("root", **bad)


async def test_start_child_with_invalid_child_spec() -> None:
    """What is no specification, or none that this supervisor can have, is refused and starts nothing."""
    async with open_tree(dynamic_supervisor("root")) as tree:
        root = tree.supervisor("root")
        for bad in ({}, ChildSpec("a", Actor, restart="temporary", significant=True)):
            with pytest.raises(SpecError):
                await root.start_child(bad)  # type: ignore[arg-type]
        assert await counts(tree) == (0, 0, 0, 0)


async def test_start_child_with_different_returns() -> None:
    """A start may succeed, decline or fail; only what runs is there afterwards."""
    async with open_tree(dynamic_supervisor("root")) as tree:
        root = tree.supervisor("root")
        await root.start_child(child("good"))
        await root.start_child(ChildSpec("declines", Declining, restart="temporary"))
        with pytest.raises(ChildStartFailed, match="no start"):
            await root.start_child(ChildSpec("fails", Failing))
        await settle()
        assert await statuses(tree) == {"good": "running"}


@pytest.mark.parametrize("error", [RuntimeError("oops"), SystemExit("oops")])
async def test_start_child_with_throw_error_exit(error: BaseException) -> None:
    """However a start is left, it is a failed start, and no more."""

    def start() -> Actor:
        raise error

    async with open_tree(dynamic_supervisor("root")) as tree:
        with pytest.raises(ChildStartFailed, match="oops"):
            await tree.supervisor("root").start_child(ChildSpec("a", start))
        assert await counts(tree) == (0, 0, 0, 0)


@pytest.mark.parametrize("how", EVERY_END)
@pytest.mark.parametrize("restart", ["temporary", "transient", "permanent"])
async def test_child_is_restarted_by_its_type(restart: str, how: How) -> None:
    """Temporary never, transient unless it ended cleanly, permanent always."""
    async with open_tree(dynamic_supervisor("root")) as tree:
        await tree.supervisor("root").start_child(child("a", restart=restart))
        await end(tree, "a", how)
        again = restart == "permanent" or (restart == "transient" and how == "abnormal")
        assert await lives(tree) == ({} if restart == "temporary" else {"a": 2 if again else 1})
        assert (await counts(tree))[1] == int(again)


async def test_start_child_with_max_children() -> None:
    """One child more than allowed is refused; there is room again when one was forgotten."""
    async with open_tree(dynamic_supervisor("root", max_children=0)) as tree:
        with pytest.raises(TooManyChildren):
            await tree.supervisor("root").start_child(child("a"))
    async with open_tree(dynamic_supervisor("root", max_children=1)) as tree:
        root = tree.supervisor("root")
        with pytest.raises(ChildStartFailed):
            await root.start_child(ChildSpec("fails", Failing))
        await root.start_child(child("a", restart="temporary"))
        with pytest.raises(TooManyChildren):
            await root.start_child(child("b"))
        await end(tree, "a", "normal")
        await root.start_child(child("b"))
        assert await statuses(tree) == {"b": "running"}


async def test_restarting_on_init_children_counted_in_max_children() -> None:
    """A child that cannot be started again for the moment still takes its place."""
    gate = Gate()
    async with open_tree(dynamic_supervisor("root", max_children=1, intensity=100_000)) as tree:
        await tree.supervisor("root").start_child(gated("a", gate))
        gate.fail_always(OSError("not now"))
        tree.inject_fault("a", ValueError("x"))
        while gate.starts < 3:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(TooManyChildren):
            await tree.supervisor("root").start_child(child("b"))


async def test_restarting_on_exit_children_counted_in_max_children() -> None:
    """So does one that has been started again."""
    async with open_tree(dynamic_supervisor("root", max_children=1, intensity=100_000)) as tree:
        await tree.supervisor("root").start_child(child("a"))
        await end(tree, "a", "shutdown")
        assert await counts(tree) == (1, 1, 0, 1)
        with pytest.raises(TooManyChildren):
            await tree.supervisor("root").start_child(child("b"))


async def test_child_is_restarted_when_trying_again() -> None:
    """A restart that fails once is tried again, and counted twice."""
    gate = Gate()
    async with open_tree(dynamic_supervisor("root", intensity=2)) as tree:
        await tree.supervisor("root").start_child(gated("a", gate))
        gate.fail_next(OSError("once"))
        tree.inject_fault("a", ValueError("x"))
        await settle()
        assert gate.starts == 3
        assert await counts(tree) == (1, 1, 0, 1)


@pytest.mark.parametrize("intensity", [1, 10])
async def test_child_triggers_maximum_intensity_when_trying_again(intensity: int) -> None:
    """A restart that fails for ever ends the supervisor after as many attempts as are allowed."""
    gate = Gate()
    async with open_tree(dynamic_supervisor("root", intensity=intensity)) as tree:
        await tree.supervisor("root").start_child(gated("a", gate))
        gate.fail_always(OSError("never"))
        tree.inject_fault("a", ValueError("x"))
        assert (await tree.wait()).exit_code == 1
        assert gate.starts == 1 + intensity


@pytest.mark.parametrize("seconds", [0, 1])
async def test_with_valid_shutdown(seconds: int) -> None:
    """A limit of zero is a limit like any other."""
    clock = VirtualClock()
    async with open_tree(dynamic_supervisor("root"), clock=clock) as tree:
        log = EventLog(tree.stream)
        await tree.supervisor("root").start_child(ChildSpec("a", lambda: Sleeper(10), shutdown=seconds))
        tree.request_shutdown("enough")
        await clock.advance(seconds)
        await tree.wait()
        assert ends(log, "a") == ["killed"]


class _Normal(Actor):
    """Ends normally, although it was asked to shut down."""

    async def on_stop(self, reason: Reason) -> None:
        self.context.stop()


@pytest.mark.parametrize("shutdown", [1.0, "infinity"])
async def test_terminates_children_with_their_shutdown(shutdown: float | str) -> None:
    """All children have ended when the supervisor has, each within its limit."""
    async with open_tree(dynamic_supervisor("root"), clock=VirtualClock()) as tree:
        log = EventLog(tree.stream)
        for name, actor in (("a", Actor), ("b", _Normal), ("c", Actor)):
            await tree.supervisor("root").start_child(ChildSpec(name, actor, shutdown=shutdown))  # type: ignore[arg-type]
        tree.request_shutdown("enough")
        await tree.wait()
        ended = [entry["actor"] for entry in log.read(event="exited")]
        assert (sorted(ended[:3]), ended[3]) == (["a", "b", "c"], "root")


async def test_terminates_children_with_expired_shutdown() -> None:
    """Only the child that is over its limit is killed."""
    clock = VirtualClock()
    async with open_tree(dynamic_supervisor("root"), clock=clock) as tree:
        log = EventLog(tree.stream)
        for name, seconds in (("a", 0), ("b", 100), ("c", 0)):
            spec = ChildSpec(name, lambda seconds=seconds: Sleeper(seconds), shutdown=1)  # type: ignore[misc]
            await tree.supervisor("root").start_child(spec)
        tree.request_shutdown("enough")
        await clock.advance(1)
        await tree.wait()
        stopped = ["shutdown: enough"]
        assert [ends(log, name) for name in "abc"] == [stopped, ["killed"], stopped]


async def test_terminates_with_mixed_children() -> None:
    """A process that is to be killed and a task with all its time end together."""
    async with open_tree(dynamic_supervisor("root")) as tree:
        log = EventLog(tree.stream)
        await tree.supervisor("root").start_child(child("a", shutdown="infinity"))
        await tree.supervisor("root").start_child(process_child("b", shutdown="brutal_kill"))
        tree.request_shutdown("enough")
        await tree.wait()
        assert (ends(log, "a"), ends(log, "b")) == (["shutdown: enough"], ["killed"])


async def test_terminate_child() -> None:
    """A temporary child that was terminated is known no more."""
    async with open_tree(dynamic_supervisor("root")) as tree:
        log = EventLog(tree.stream)
        await tree.supervisor("root").start_child(child("a", restart="temporary", shutdown=1))
        await tree.supervisor("root").terminate_child("a")
        assert ends(log, "a") == ["shutdown: terminated on request"]
        with pytest.raises(NoSuchChild):
            await tree.supervisor("root").terminate_child("a")
        assert await counts(tree) == (0, 0, 0, 0)


async def test_terminates_restarting_child() -> None:
    """A child that is being restarted, without success, is terminated like one that runs."""
    gate = Gate()
    async with open_tree(dynamic_supervisor("root", intensity=100_000)) as tree:
        await tree.supervisor("root").start_child(gated("a", gate))
        gate.shut()
        tree.inject_fault("a", ValueError("x"))
        await settle()
        assert await statuses(tree) == {"a": "starting"}
        await tree.supervisor("root").terminate_child("a")
        assert await counts(tree) == (1, 0, 0, 1)
        await tree.supervisor("root").delete_child("a")
        assert await counts(tree) == (0, 0, 0, 0)
