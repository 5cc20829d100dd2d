"""Whoever waits is cancelled, at each scheduling point in turn: nothing is lost, doubled or left, and nobody hangs.

Each ``await`` of the core is among these points: of a call, a send, a request, of a supervisor, an actor and the tree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.supervisor.stalls import Script, World, asking, coming_and_going, crashing, stopping, talking

pytestmark = pytest.mark.anyio
SCENARIOS = [talking, crashing, asking, coming_and_going]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def _everywhere(script: Script, how: str, *, whole: bool = False, least: int) -> None:
    number = 1
    while True:
        world = World(script, number, how, whole=whole)
        try:
            count = await world.play()
        except Exception as error:
            error.add_note(f"{script.__name__}, {how}, at point {number}")
            raise
        if count < number:
            break
        number += 1
    assert number > least, "it had so many points"


@pytest.mark.parametrize("script", SCENARIOS)
async def test_the_caller_is_cancelled_anywhere(script: Script) -> None:
    await _everywhere(script, "caller", least=20)


@pytest.mark.parametrize("script", SCENARIOS)
async def test_the_tree_is_cancelled_anywhere(script: Script) -> None:
    await _everywhere(script, "tree", least=20)


async def test_the_tree_is_cancelled_anywhere_in_its_boot_and_its_stop() -> None:
    await _everywhere(stopping, "tree", whole=True, least=40)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("script", [*SCENARIOS, stopping])
async def test_any_task_is_cancelled_by_a_stranger_anywhere(script: Script) -> None:
    """Of a supervisor, of an actor, of a task that it spawned, or of the caller: only asyncio lets anybody do that."""
    await _everywhere(script, "task", whole=script is stopping, least=20)
