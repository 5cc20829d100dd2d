"""Everything senseless is refused before anything starts, and the error names it."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor import ChildSpec, CoolDown, Escalate, ProcessStart, SpecError, SupervisorSpec, open_tree
from supervisor.dynamic import dynamic_supervisor
from tests.supervisor.helpers import Counter


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"id": ""}, "id"),
        ({"id": 3}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": " a"}, "id"),
        ({"start": "module:Class"}, "start"),
        ({"start": None}, "start"),
        ({"start": ProcessStart("m:C")}, "isolation='process'"),
        ({"isolation": "process"}, "ProcessStart"),
        ({"isolation": "thread"}, "isolation"),
        ({"restart": "always"}, "restart"),
        ({"shutdown": "brutal_kill"}, "brutal_kill"),
        ({"shutdown": -1}, "shutdown"),
        ({"shutdown": "soon"}, "shutdown"),
        ({"shutdown": float("inf")}, "shutdown"),
        ({"shutdown": True}, "shutdown"),
        ({"start_timeout": 0}, "start_timeout"),
        ({"start_timeout": None}, "start_timeout"),
        ({"liveness": 0}, "liveness"),
        ({"significant": True}, "significant"),
        ({"on_give_up": "escalate"}, "on_give_up"),
    ],
)
def test_a_senseless_child_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        ChildSpec(**{"id": "a", "start": Counter, **options})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="silly_flag"):
        ChildSpec("a", Counter, silly_flag=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_restarts"):
        SupervisorSpec("root", max_restarts=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"strategy": "one_for_some"}, "strategy"),
        ({"intensity": -1}, "intensity"),
        ({"intensity": 1.5}, "intensity"),
        ({"intensity": True}, "intensity"),
        ({"period": 0}, "period"),
        ({"backoff": 3}, "backoff"),
        ({"auto_shutdown": "sometimes"}, "auto_shutdown"),
        ({"significant": True}, "significant"),
        ({"restart": "often"}, "restart"),
        ({"on_give_up": None, "restart": ""}, "restart"),
        ({"dynamic": True, "strategy": "one_for_all"}, "one_for_one"),
        ({"dynamic": True, "auto_shutdown": "any_significant"}, "auto_shutdown"),
        ({"dynamic": True, "children": [ChildSpec("a", Counter)]}, "at run time"),
        ({"children": ["a"]}, "child specification"),
        ({"children": ChildSpec("a", Counter)}, "children must be a list"),
        ({"children": None}, "children must be a list"),
        ({"children": [ChildSpec("a", Counter), ChildSpec("a", Counter)]}, "twice"),
        ({"children": [ChildSpec("root", Counter)]}, "twice"),
        ({"children": [SupervisorSpec("s", [ChildSpec("a", Counter)]), ChildSpec("a", Counter)]}, "twice"),
        ({"children": [ChildSpec("a", Counter, restart="transient", significant=True)]}, "auto_shutdown"),
    ],
)
def test_a_senseless_supervisor_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        SupervisorSpec(**{"id": "root", **options})


def test_what_makes_sense_is_taken() -> None:
    ChildSpec("a", ProcessStart("actors.trainer.actor:TrainerActor"), isolation="process", shutdown="brutal_kill")
    ChildSpec("a", Counter, shutdown="infinity", liveness=3, on_give_up=CoolDown(1))
    ChildSpec("a", Counter, shutdown=0)
    SupervisorSpec("root", [ChildSpec("a", Counter)], intensity=0, on_give_up=Escalate())
    assert dynamic_supervisor("pool", intensity=9).intensity == 9


@pytest.mark.parametrize(
    "target", ["module", "module:", ":Class", "a b:C", "module:Class:x", "module.:C", Counter, lambda: Counter()]
)
def test_a_senseless_process_start_is_refused(target: Any) -> None:
    with pytest.raises(SpecError, match="module:Class"):
        ProcessStart(target)


def test_a_class_of_the_main_module_is_no_target() -> None:
    with pytest.raises(SpecError, match="module of its own"):
        ProcessStart("__main__:Counter")


@pytest.mark.anyio
async def test_only_a_supervisor_is_a_tree() -> None:
    with pytest.raises(SpecError, match="a tree wants a SupervisorSpec"):
        async with open_tree(ChildSpec("a", Counter)):  # type: ignore[arg-type]
            pass


def test_children_may_come_from_any_iterable_and_do_not_change_afterwards() -> None:
    children = [ChildSpec("a", Counter)]
    spec = SupervisorSpec("root", children)
    children.append(ChildSpec("a", Counter))
    assert [child.id for child in spec.children] == ["a"]
    spec = SupervisorSpec("root", (ChildSpec(name, Counter) for name in "ab"))  # type: ignore[arg-type]
    assert [child.id for child in spec.children] == ["a", "b"]


@pytest.mark.parametrize("environment", [{"A": 1}, {"A=B": "x"}, {"": "x"}, {"A": "x\0"}])
def test_a_senseless_environment_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="environment variable"):
        ProcessStart("m:C", environment=environment)


def test_process_arguments_are_a_function() -> None:
    with pytest.raises(SpecError, match="function"):
        ProcessStart("m:C", {"a": 1})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="preload must be a tuple"):
        ProcessStart("m:C", preload="torch")  # type: ignore[arg-type]
