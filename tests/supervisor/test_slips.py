"""What is easily written wrong in a class of an actor is refused when the class is made, in words."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from supervisor import Actor, ChildSpec, Down, Reply, SupervisorSpec, on, on_batch, on_deferred, on_down, open_tree
from tests.supervisor.helpers import GetAll, Put

pytestmark = pytest.mark.anyio

_on: Any = on
"""As one calls it who does not run a type checker."""


def test_a_handler_is_async() -> None:
    with pytest.raises(TypeError, match=r"the handler of GetAll must be `async def`.*_Sync.get"):

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
