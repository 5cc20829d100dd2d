"""OTP's cases of starting: what a child that declines or fails leaves behind, and which specifications are refused."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from supervisor import (
    Actor,
    AlreadyStarted,
    ChildSpec,
    ChildStartFailed,
    CoolDown,
    ExitReport,
    ProcessStart,
    Shutdown,
    SpecError,
    StartFailed,
    SupervisorSpec,
    TreeStartFailed,
    open_tree,
)
from supervisor.dynamic import dynamic_supervisor
from supervisor.limits import stop_limit
from supervisor.testing import Gate, settle
from tests.supervisor.helpers import GetAll
from tests.supervisor.otp.kit import Child, Declining, Failing, child, counts, end, gated, statuses

pytestmark = pytest.mark.anyio


async def test_sup_start_normal() -> None:
    """A supervisor without children starts, and ends when it is told to."""
    async with open_tree(SupervisorSpec("root", intensity=2, period=3600)) as tree:
        assert tree.view().status == "running"
        tree.request_shutdown("enough")
        assert await tree.wait() == ExitReport(Shutdown("enough"), 0)


async def test_sup_start_ignore_child() -> None:
    """A child that declines at its start is no error; its specification is kept, not running."""
    async with open_tree(SupervisorSpec("root", intensity=2, period=3600)) as tree:
        root = tree.supervisor("root")
        await root.start_child(ChildSpec("child1", Declining, restart="transient"))
        await root.start_child(child("child2"))
        await settle()
        assert await statuses(tree) == {"child1": "stopped", "child2": "running"}
        assert await counts(tree) == (2, 1, 0, 2)


async def test_sup_start_ignore_temporary_child() -> None:
    """A temporary child that declines at the boot is no error, and is not kept."""
    children = [ChildSpec("child1", Declining, restart="temporary"), child("child2", restart="temporary")]
    async with open_tree(SupervisorSpec("root", children, intensity=2, period=3600)) as tree:
        await settle()
        assert await statuses(tree) == {"child2": "running"}
        assert await counts(tree) == (1, 1, 0, 1)


async def test_sup_start_ignore_temporary_child_start_child() -> None:
    """A temporary child that declines when it is started at run time is not kept."""
    await _declines_at_run_time(SupervisorSpec("root", intensity=2, period=3600), "temporary", kept=False)


async def test_sup_start_ignore_temporary_child_start_child_simple() -> None:
    """The same under a dynamic supervisor."""
    await _declines_at_run_time(dynamic_supervisor("root", intensity=2, period=3600), "temporary", kept=False)


async def test_sup_start_ignore_permanent_child_start_child_simple() -> None:
    """A dynamic child that declines harms nobody. Only a transient or temporary one may: permanent means running."""
    await _declines_at_run_time(dynamic_supervisor("root", intensity=2, period=3600), "transient", kept=True)
    async with open_tree(dynamic_supervisor("root", intensity=2, period=3600)) as tree:
        await tree.supervisor("root").start_child(ChildSpec("child1", Declining))
        assert (await tree.wait()).exit_code == 1, "it never runs, so its supervisor gives up"


async def _declines_at_run_time(spec: SupervisorSpec, restart: str, *, kept: bool) -> None:
    async with open_tree(spec) as tree:
        root = tree.supervisor("root")
        await root.start_child(ChildSpec("child1", Declining, restart=restart))  # type: ignore[arg-type]
        await root.start_child(child("child2", restart=restart))
        await settle()
        assert await statuses(tree) == ({"child1": "stopped"} if kept else {}) | {"child2": "running"}
        tree.request_shutdown("enough")
        assert (await tree.wait()).exit_code == 0


async def test_simple_one_for_one_restart_ignore() -> None:
    """A dynamic child that is started again and then declines is not tried once more; its supervisor goes on."""
    starts: list[int] = []

    class DeclinesLater(Child):
        async def on_start(self) -> None:
            starts.append(self.context.incarnation)
            if len(starts) == 3:
                self.context.stop()

    async with open_tree(dynamic_supervisor("root", intensity=10, period=3600)) as tree:
        await tree.supervisor("root").start_child(ChildSpec("child1", DeclinesLater, restart="transient"))
        await end(tree, "child1")
        assert await statuses(tree) == {"child1": "running"}
        await end(tree, "child1")
        assert await statuses(tree) == {"child1": "stopped"}
        assert starts == [1, 2, 3]
        tree.request_shutdown("enough")
        assert (await tree.wait()).exit_code == 0


async def test_sup_start_error_return() -> None:
    """A start function that returns no actor fails the boot, and nothing is left running."""
    spec = SupervisorSpec("root", [ChildSpec("child1", lambda: "invalid")])  # type: ignore[arg-type, return-value]
    with pytest.raises(TreeStartFailed, match="child1"):
        async with open_tree(spec):
            pytest.fail("it is not up")


async def test_sup_start_fail() -> None:
    """A start function that raises fails the boot with its error."""

    def start() -> Actor:
        raise ZeroDivisionError("at the start")

    with pytest.raises(TreeStartFailed, match="ZeroDivisionError: child1: at the start"):
        async with open_tree(SupervisorSpec("root", [ChildSpec("child1", start)])):
            pytest.fail("it is not up")


async def test_faulty_application_shutdown() -> None:
    """Whoever starts a program that cannot start learns which child it was, and where it failed."""
    inner = SupervisorSpec("inner", [ChildSpec("faulty", Failing)])
    with pytest.raises(TreeStartFailed) as caught:
        async with open_tree(SupervisorSpec("root", [inner])):
            pytest.fail("it is not up")
    reason = caught.value.reason
    assert isinstance(reason, StartFailed)
    assert "inner: faulty: no start" in reason.text
    assert "kit.py" in reason.traceback
    assert "faulty" in "".join(traceback.format_exception(caught.value))


async def test_sup_start_child_returns_error() -> None:
    """A child that fails when it is started at run time is reported and not kept."""
    await _fails_at_run_time(SupervisorSpec("root", intensity=2, period=3600))


async def test_sup_start_child_returns_error_simple() -> None:
    """The same under a dynamic supervisor."""
    await _fails_at_run_time(dynamic_supervisor("root", intensity=2, period=3600))


async def _fails_at_run_time(spec: SupervisorSpec) -> None:
    async with open_tree(spec) as tree:
        for start in (Failing, lambda: "invalid"):
            with pytest.raises(ChildStartFailed):
                await tree.supervisor("root").start_child(ChildSpec("child1", start))  # type: ignore[arg-type]
            assert await statuses(tree) == {}


async def test_sup_start_restart_child_returns_error() -> None:
    """A child that fails when it is started again by hand is reported, and kept."""
    gate = Gate()
    async with open_tree(SupervisorSpec("root", [gated("child1", gate)], intensity=2, period=3600)) as tree:
        await tree.supervisor("root").terminate_child("child1")
        gate.fail_always(OSError("no start"))
        with pytest.raises(ChildStartFailed, match="no start"):
            await tree.supervisor("root").restart_child("child1")
        assert await statuses(tree) == {"child1": "stopped"}


def test_sup_start_map() -> None:
    """What a specification takes where nothing is said."""
    spec = ChildSpec("child1", Actor)
    assert (spec.restart, spec.shutdown, spec.significant) == ("permanent", 5.0, False)
    killed = ChildSpec("child2", ProcessStart("a:B"), shutdown="brutal_kill", isolation="process")
    assert stop_limit(killed) == 0
    below = SupervisorSpec("child3")
    assert (below.restart, below.strategy, below.auto_shutdown) == ("permanent", "one_for_one", "never")
    assert (below.intensity, below.period) == (3, 5.0)
    assert stop_limit(below) is None, "a supervisor has all the time it needs"


async def test_sup_start_map_simple() -> None:
    """A dynamic supervisor starts with the same defaults, and each of its children has a specification of its own."""
    spec = dynamic_supervisor("root")
    assert (spec.strategy, spec.intensity, spec.period, spec.children) == ("one_for_one", 3, 5.0, ())
    async with open_tree(spec) as tree:
        for name in ("child1", "child2", "child3"):
            await tree.supervisor("root").start_child(child(name, restart="temporary"))
        assert await counts(tree) == (3, 3, 0, 3)


def test_sup_start_map_faulty_specs() -> None:
    """A specification without id or start, or with an unknown field, or of a wrong type, is refused."""
    for fields in ({"start": Actor}, {"id": "child2"}, {"id": "child3", "start": Actor, "silly_flag": True}):
        with pytest.raises(TypeError):
            ChildSpec(**fields)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="not a child specification: 'child4'"):
        SupervisorSpec("root", ["child4"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "bad",
    [
        {"id": ""},
        {"id": 7},
        {"start": "mfa"},
        {"restart": "prmanent"},
        {"shutdown": -10},
        {"shutdown": "brutal_kill"},
        {"isolation": "wrker"},
        {"significant": True},
        {"significant": True, "restart": "permanent"},
        {"start_timeout": 0},
        {"liveness": -1},
        {"on_give_up": "never"},
    ],
)
def test_child_specs_map(bad: dict[str, Any]) -> None:
    """Each senseless value is refused and named; what makes sense together is taken."""
    with pytest.raises(SpecError):
        ChildSpec(**({"id": "child", "start": Actor} | bad))


@pytest.mark.parametrize("auto_shutdown", ["never", "any_significant", "all_significant"])
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("significant", [True, False])
def test_child_specs(auto_shutdown: Any, restart: Any, significant: bool) -> None:
    """Which combinations of restart type, significance and automatic shutdown are taken; an id is taken once."""
    sensible = not significant or (restart != "permanent" and auto_shutdown != "never")
    for shutdown in (0, 1000, "infinity"):
        try:
            one = ChildSpec("child", Actor, restart=restart, shutdown=shutdown, significant=significant)  # type: ignore[arg-type]
            SupervisorSpec("root", [one], auto_shutdown=auto_shutdown)
        except SpecError:
            assert not sensible
        else:
            assert sensible
            with pytest.raises(SpecError, match="twice"):
                SupervisorSpec("root", [one, one], auto_shutdown=auto_shutdown)


@pytest.mark.parametrize(
    "bad",
    [
        {"strategy": "none_for_one"},
        {"intensity": -1},
        {"intensity": float("inf")},
        {"period": 0},
        {"period": float("inf")},
        {"auto_shutdown": "sometimes"},
        {"on_give_up": CoolDown},
    ],
)
def test_sup_flags(bad: dict[str, Any]) -> None:
    """Each senseless value of a supervisor is refused; an unknown one, too."""
    (key,) = bad
    with pytest.raises(SpecError, match=key):
        SupervisorSpec("root", **bad)
    with pytest.raises(TypeError, match="silly_flag"):
        SupervisorSpec("root", silly_flag=True)  # type: ignore[call-arg]


async def test_already_started_outside_supervisor() -> None:
    """A name that somebody else holds is refused; who holds it does not notice, nor does the supervisor."""
    async with open_tree(SupervisorSpec("root", [SupervisorSpec("sup"), child("taken")])) as tree:
        with pytest.raises(AlreadyStarted):
            await tree.supervisor("sup").start_child(child("taken", restart="transient"))
        assert await tree.ref("taken").call(GetAll()) == []
        assert await counts(tree, "sup") == (0, 0, 0, 0)
