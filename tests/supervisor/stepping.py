"""Does something at one scheduling point of a whole tree: to be repeated for each of them, on either event loop.

A scheduling point is a moment at which a task of the tree, or the task that uses it, gives way to others. Time is
virtual and the order of tasks is fixed, so the points of two runs are the same up to the one where something is done.
"""

from __future__ import annotations

import random
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from protocol.backend import AsyncioBackend, Main
from protocol.backend_trio import TrioBackend


class Points:
    """Counts scheduling points while it is ``on``, and acts at that of the given number, from 1."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.number = number
        self.count = 0
        self.on = False
        self.living: dict[int, str] = {}
        """The tasks of the tree that have begun and not ended, by number: their names."""
        self._act = act
        self._begun = 0

    async def drive(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine whose scheduling points count."""
        await self._driven(coroutine)

    @types.coroutine
    def _driven(self, coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                trap = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration:
                return
            self._pass()
            value = error = None
            try:
                value = yield trap
            except BaseException as thrown:  # noqa: BLE001  (it is thrown again, in there)
                error = thrown

    def _pass(self) -> None:
        if self.on:
            self.count += 1
            if self.count == self.number:
                self._act()

    @contextmanager
    def of_all_tasks(self) -> Iterator[None]:
        """Count those of each task that a tree starts from now on, too."""
        spawns = {kind: kind.spawn for kind in (AsyncioBackend, TrioBackend)}

        def spawning(kind: Any) -> Callable[[Any, Main, str], object]:
            return lambda backend, main, name: spawns[kind](backend, lambda: self._life(main, name), name)

        with _fixed_order():
            for kind in spawns:
                kind.spawn = spawning(kind)  # type: ignore[method-assign]
            try:
                yield
            finally:
                for kind, spawn in spawns.items():
                    kind.spawn = spawn  # type: ignore[method-assign]

    async def _life(self, main: Main, name: str) -> None:
        self._begun += 1
        number = self._begun
        self.living[number] = name
        try:
            await self.drive(main())
        finally:
            del self.living[number]


@contextmanager
def _fixed_order() -> Iterator[None]:
    """trio shuffles the tasks that can run. With this it does so alike each time."""
    run: Any = trio._core._run  # type: ignore[attr-defined]
    before = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r
    run._ALLOW_DETERMINISTIC_SCHEDULING, run._r = True, random.Random(0)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING, run._r = before
