"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def until(condition: Callable[[], T | Awaitable[T]], within: float = 10.0) -> T:
    """Return the first true value of ``condition``; fail when there is none within so many seconds."""
    with anyio.move_on_after(within):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value  # type: ignore[return-value]
            await anyio.sleep(0.005)
    raise AssertionError(f"not true within {within} s: {inspect.getsource(condition).strip()}")
