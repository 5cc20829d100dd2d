"""OTP's cases of significant children and automatic shutdown."""

from __future__ import annotations

import pytest

from supervisor import Shutdown, SpecError, SupervisorSpec, Tree, open_tree
from supervisor.dynamic import dynamic_supervisor
from supervisor.testing import settle
from tests.supervisor.otp.kit import EVERY_END, How, child, counts, end, lives, statuses

pytestmark = pytest.mark.anyio

MODES = ("any_significant", "all_significant")


def _spec(mode: str, restart: str, **more: object) -> SupervisorSpec:
    """Two significant children, and one that is not."""
    children = [child(name, restart=restart, significant=name != "child3") for name in ("child1", "child2", "child3")]
    return SupervisorSpec("root", children, auto_shutdown=mode, intensity=5, **more)  # type: ignore[arg-type]


async def _is_up(tree: Tree) -> bool:
    await settle()
    return tree.view().status == "running"


async def _shut_down(tree: Tree) -> None:
    report = await tree.wait()
    assert isinstance(report.reason, Shutdown)
    assert report.exit_code == 0


@pytest.mark.parametrize("mode", ["never", *MODES])
async def test_nonsignificant_temporary(mode: str) -> None:
    """No end of a temporary child that is not significant ends the supervisor."""
    spec = SupervisorSpec("root", auto_shutdown=mode, intensity=5)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        root = tree.supervisor("root")
        for how in EVERY_END:
            await root.start_child(child("child1", restart="temporary"))
            await end(tree, "child1", how)
            assert await statuses(tree) == {}
        await root.start_child(child("child1", restart="temporary"))
        await root.terminate_child("child1")
        assert await _is_up(tree)


@pytest.mark.parametrize("mode", ["never", *MODES])
async def test_nonsignificant_transient(mode: str) -> None:
    """No end of a transient child that is not significant ends the supervisor."""
    spec = SupervisorSpec("root", [child("child1", restart="transient")], auto_shutdown=mode, intensity=5)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        root = tree.supervisor("root")
        await end(tree, "child1", "abnormal")
        for how in ("normal", "shutdown", "shutdown_detail"):
            assert await statuses(tree) == {"child1": "running"}
            await end(tree, "child1", how)  # type: ignore[arg-type]
            assert await statuses(tree) == {"child1": "stopped"}
            await root.restart_child("child1")
        await root.terminate_child("child1")
        assert await _is_up(tree)


@pytest.mark.parametrize("how", EVERY_END)
async def test_significant_temporary(how: How) -> None:
    """Each end of its own of a significant temporary child counts; being terminated on request does not."""
    async with open_tree(_spec("any_significant", "temporary")) as tree:
        await tree.supervisor("root").terminate_child("child1")
        assert await _is_up(tree)
        await end(tree, "child2", how)
        await _shut_down(tree)
    async with open_tree(_spec("all_significant", "temporary")) as tree:
        await end(tree, "child1", how)
        assert await counts(tree) == (2, 2, 0, 2)
        await end(tree, "child2", how)
        await _shut_down(tree)


@pytest.mark.parametrize("how", ["normal", "shutdown", "shutdown_detail"])
async def test_significant_transient(how: How) -> None:
    """A clean end of a significant transient child counts; a crash does not, and it is started again."""
    async with open_tree(_spec("any_significant", "transient")) as tree:
        await tree.supervisor("root").terminate_child("child1")
        await tree.supervisor("root").restart_child("child1")
        await end(tree, "child1", "abnormal")
        assert await lives(tree) == {"child1": 3, "child2": 1, "child3": 1}
        await end(tree, "child1", how)
        await _shut_down(tree)
    async with open_tree(_spec("all_significant", "transient")) as tree:
        await end(tree, "child1", how)
        await end(tree, "child2", "abnormal")
        assert await statuses(tree) == {"child1": "stopped", "child2": "running", "child3": "running"}
        await end(tree, "child2", how)
        await _shut_down(tree)


async def test_significant_simple() -> None:
    """A dynamic supervisor has no automatic shutdown, and so no significant children."""
    with pytest.raises(TypeError, match="auto_shutdown"):
        dynamic_supervisor("root", auto_shutdown="any_significant")  # type: ignore[call-arg]
    async with open_tree(dynamic_supervisor("root")) as tree:
        with pytest.raises(SpecError, match="significant"):
            await tree.supervisor("root").start_child(child("child1", restart="temporary", significant=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("strategy", "fallen"), [("one_for_one", ()), ("one_for_all", ("child1", "child3")), ("rest_for_one", ("child3",))]
)
async def test_significant_bystander(strategy: str, fallen: tuple[str, ...], mode: str) -> None:
    """Significant children that fall with a sibling do not end the supervisor."""
    children = [
        child(name, restart="transient", significant=name != "child2") for name in ("child1", "child2", "child3")
    ]
    spec = SupervisorSpec("root", children, strategy=strategy, intensity=5, auto_shutdown=mode)  # type: ignore[arg-type]
    async with open_tree(spec) as tree:
        await end(tree, "child2")
        assert await _is_up(tree)
        assert await lives(tree) == {child.id: 2 if child.id in (*fallen, "child2") else 1 for child in children}


@pytest.mark.parametrize("significant", [True, False])
async def test_significant_escalation(significant: bool) -> None:
    """An automatic shutdown climbs through a significant supervisor, and only through such a one."""
    inner = SupervisorSpec("sup1", auto_shutdown="any_significant", restart="transient", significant=significant)
    async with open_tree(SupervisorSpec("root", [inner], auto_shutdown="any_significant")) as tree:
        await tree.supervisor("sup1").start_child(child("child1", restart="transient", significant=True))
        await end(tree, "child1", "normal")
        if significant:
            await _shut_down(tree)
        else:
            assert await statuses(tree) == {"sup1": "stopped"}
            assert await _is_up(tree)
