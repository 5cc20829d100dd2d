"""What messages cost with nothing around them: a deque, a loop that empties it, and a future or an event to wake it.

The references of the messaging rows. No types, no supervision, no time limits: the least that a mailbox can be.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any

import anyio

BOUND = 1024


class FutureBox:
    """asyncio: a bounded mailbox on a deque and native futures. Use it in an ``async with``."""

    def __init__(self) -> None:
        self.handled = 0
        self._queue: deque[Any] = deque()
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    async def __aenter__(self) -> FutureBox:
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()

    async def tell(self, message: Any) -> None:
        """Put a message in, waiting for room."""
        queue = self._queue
        if len(queue) >= BOUND:
            self._writer = self._loop.create_future()
            await self._writer
        queue.append((message, None))
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def tell_now(self, message: Any) -> bool:
        """Put a message in if there is room."""
        queue = self._queue
        if len(queue) >= BOUND:
            return False
        queue.append((message, None))
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        return True

    async def ask(self, message: Any) -> Any:
        """Put a message in and wait for its answer."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append((message, answer))
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        return await answer

    async def _serve(self) -> None:
        queue = self._queue
        while True:
            while queue:
                _, answer = queue.popleft()
                self.handled += 1
                if answer is not None and not answer.done():
                    answer.set_result(self.handled)
            if self._writer is not None and not self._writer.done():
                self._writer.set_result(None)
            self._reader = self._loop.create_future()
            await self._reader


class EventBox:
    """Any event loop of anyio: the same with ``anyio.Event``."""

    def __init__(self) -> None:
        self.handled = 0
        self._queue: deque[Any] = deque()
        self._arrived = anyio.Event()

    async def ask(self, message: Any) -> Any:
        """Put a message in and wait for its answer."""
        done, answer = anyio.Event(), []
        self._queue.append((message, done, answer))
        self._arrived.set()
        await done.wait()
        return answer[0]

    async def serve(self) -> None:
        """Answer until cancelled."""
        queue = self._queue
        while True:
            while queue:
                _, done, answer = queue.popleft()
                self.handled += 1
                answer.append(self.handled)
                done.set()
            self._arrived = anyio.Event()
            await self._arrived.wait()
