"""Waiting for what a tree does, without sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio

from protocol.backend import AsyncioBackend, current_backend
from supervisor.stream import EventStream


async def settle() -> None:
    """Let every task of the event loop run until all of them wait.

    Example::

        async with open_tree(spec) as tree:
            tree.ref("counter").cast(Add(1))
            await settle()
            assert tree.introspection.state("counter").last_message == "Add"
    """
    if isinstance(current_backend(), AsyncioBackend):
        # What anyio does next sleeps for 0.1 s at a time while anything is ready; so first let that run.
        ready = getattr(asyncio.get_running_loop(), "_ready", ())
        await asyncio.sleep(0)
        while ready:  # noqa: ASYNC110, there is no event to wait for
            await asyncio.sleep(0)
    await anyio.wait_all_tasks_blocked()


async def eventually(condition: Callable[[], bool], within: float = 10.0, every: float = 0.005) -> None:
    """Wait until a condition of the outside world holds, in real time. Raises ``AssertionError`` if it never does.

    Example::

        async with open_tree(spec) as tree:
            tree.inject_fault("counter", ValueError("a fault of the test"))
            await eventually(lambda: tree.introspection.state("counter").restarts == 1)
    """
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {condition}")
        await anyio.sleep(every)


class EventLog:
    """Everything published to some topics, from the moment it was made. Read it, or wait for an entry.

    Example::

        async with open_tree(spec) as tree:
            log = EventLog(tree.stream)
            tree.inject_fault("counter", ValueError("a fault of the test"))
            crash = await log.wait_for(actor="counter", error="ValueError")
            assert crash["will_restart"]
            await log.wait_for(event="started", actor="counter", incarnation=2)
            log.assert_in_order({"error": "ValueError"}, {"event": "exited"}, {"event": "started"})
    """

    def __init__(self, stream: EventStream, topics: Iterable[str] = ("lifecycle", "crashes")) -> None:
        self._subscription = stream.subscribe(topics, bound=100_000)
        self.entries: list[tuple[str, dict[str, Any]]] = []

    def read(self, **fields: Any) -> list[dict[str, Any]]:
        """All entries so far whose fields have these values."""
        while (event := self._subscription.take()) is not None:
            self.entries.append((event.topic, event.data))
        return [data for _, data in self.entries if all(data.get(key) == value for key, value in fields.items())]

    def topic(self, topic: str) -> list[dict[str, Any]]:
        """All entries of one topic so far."""
        self.read()
        return [data for name, data in self.entries if name == topic]

    def assert_in_order(self, *wanted: Mapping[str, Any]) -> None:
        """Raise ``AssertionError`` unless such entries have come, in this order. Others may stand between them."""
        left = list(wanted)
        for data in self.read():
            if left and all(data.get(key) == value for key, value in left[0].items()):
                del left[0]
        if left:
            raise AssertionError(f"no {dict(left[0])} after what goes before it; there is {self.read()}")

    async def wait_for(self, within: float = 10.0, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait, in real time, until so many such entries have come, and return the newest of them."""
        with anyio.move_on_after(within):
            while len(found := self.read(**fields)) < count:
                event = await anext(self._subscription)
                self.entries.append((event.topic, event.data))
            return found[-1]
        raise AssertionError(
            f"no {count} of {fields} within {within:g} s; there is {[data for _, data in self.entries]}"
        )
