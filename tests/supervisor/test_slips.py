"""What is easily written wrong is refused in words, and as early as can be: a class of an actor when it is made."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from supervisor import (
    Actor,
    ChildSpec,
    Down,
    HandlerFailed,
    ProcessStart,
    Reply,
    Request,
    SpecError,
    SupervisorSpec,
    TreeStartFailed,
    on,
    on_batch,
    on_deferred,
    on_down,
    open_tree,
    partitions,
)
from tests.supervisor.helpers import Counter, GetAll, Put
from tests.supervisor.processes import process_child

pytestmark = pytest.mark.anyio

_on: Any = on
"""As one calls it who does not run a type checker."""


def test_a_handler_is_async() -> None:
    with pytest.raises(TypeError, match=r"the handler of GetAll, .*_Sync.get, must be `async def`"):

        class _Sync(Actor):
            @_on(GetAll)
            def get(self, message: GetAll) -> list[int]:
                return []


@pytest.mark.parametrize("mark", [on_deferred(GetAll), on_batch(GetAll), on_down])
def test_so_is_one_of_any_other_kind(mark: Any) -> None:
    with pytest.raises(TypeError, match="must be `async def`"):
        mark(lambda self, message: None)


@pytest.mark.parametrize("name", ["on_start", "on_stop"])
def test_a_hook_is_async(name: str) -> None:
    with pytest.raises(TypeError, match=f"_Sync.{name} must be `async def`"):
        type(Actor)("_Sync", (Actor,), {name: lambda self, *reason: None})


@pytest.mark.parametrize("kind", [int, "GetAll", None, Down, Put(1)])
def test_a_handler_is_of_a_class_of_messages(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"the class of a message is wanted.*@on\(Kind\)"):
        _on(kind)


def test_the_decorator_wants_its_class_in_brackets() -> None:
    with pytest.raises(TypeError, match=r"the class of a message is wanted.*@on\(Kind\)"):

        class _Bare(Actor):
            @_on
            async def get(self, message: GetAll) -> list[int]:
                return []


def _counted(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A decorator that is no coroutine function itself, but says what it wraps."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Awaitable[Any]:
        return function(*arguments)

    return call


class _Wrapped(Actor):
    def __init__(self) -> None:
        self.said = 0

    @_counted
    async def on_start(self) -> None:
        self.said = 1

    @on(GetAll)
    @_counted
    async def _(self, message: GetAll) -> list[int]:
        return [self.said]

    @on_batch(Put)  # type: ignore[arg-type]  # it is cast here, and any message may come in a batch
    @_counted
    async def _(self, batch: Sequence[tuple[Put, Reply[None]]]) -> None:
        self.said += len(batch)


async def test_a_decorated_handler_is_taken_for_what_it_wraps() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", _Wrapped)])) as tree:
        tree.ref("a").cast(Put(1))
        assert await tree.ref("a").call(GetAll()) == [2]


class _OfTheProgram(Request[int], frozen=True):
    """As if it had been defined in the file that was started."""


_OfTheProgram.__module__ = "__main__"


async def test_a_message_of_the_main_module_is_unknown_to_a_process_which_says_why() -> None:
    async with open_tree(SupervisorSpec("root", [process_child()])) as tree:
        with pytest.raises(HandlerFailed, match=r"__main__:_OfTheProgram is not handled here.* a module of its own"):
            await tree.ref("Worker").call(_OfTheProgram())


async def test_arguments_that_no_message_carries_are_named() -> None:
    start = ProcessStart("tests.supervisor.process_actors:Worker", arguments=lambda: {"log": object()})
    with pytest.raises(TreeStartFailed, match=r"p: the arguments of tests.*:Worker cannot be encoded: .*object"):
        async with open_tree(SupervisorSpec("root", [ChildSpec("p", start, isolation="process")])):
            pass


@pytest.mark.parametrize("made", [Counter, Counter(), None])
def test_a_partition_is_a_child(made: Any) -> None:
    with pytest.raises(SpecError, match="partitions 'pool': make must return a ChildSpec"):
        partitions("pool", 2, lambda number: made)
