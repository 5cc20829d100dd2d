"""The one seam where asyncio and trio differ (with ``backend_trio.py``, imported only where trio runs).

Everything else in the library is written against six operations: a one-shot waiter on a native future, starting a
task that nobody's scope owns, a timer, reading from a socket, the task now running, and the stack of a task. The waiter
is native because ``anyio.Event`` alone costs half of a call's round trip.

Tasks are started outside of any task group (``loop.create_task``, trio's system nursery), since a task group cannot be
left while a member refuses to end, and this library promises to name such a member and go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

from anyio import NoEventLoopError
from anyio.lowlevel import RunVar

from protocol.receiver import AsyncioReceiver, Receiver, Take

Main = Callable[[], Coroutine[Any, Any, None]]


class Waiter(Protocol):
    """Something that one task awaits, until :meth:`Backend.wake` is called with it."""

    def __await__(self) -> Generator[Any, Any, None]: ...


class TimerHandle(Protocol):
    """A timer that has not fired yet, or has; cancelling a fired one is harmless."""

    def cancel(self) -> None: ...


class Backend(Protocol):
    """What the library needs from the event loop that runs it."""

    def waiter(self) -> Waiter: ...

    def wake(self, waiter: Waiter) -> None:
        """Let go of whoever awaits this waiter of ours. Waking twice, or before, is harmless."""

    def spawn(self, main: Main, name: str) -> object:
        """Start a task owned by nobody; ``main`` must not raise. Returns the task, for :meth:`stack_of`."""
        ...

    def current_task(self) -> object: ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle: ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback before the loop waits for anything again. It must not raise."""

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Run a callback on the loop, from any thread. Does nothing once the loop has ended."""

    def receiver(self, sock: socket.socket, take: Take) -> Receiver:
        """Return a new reader of a non-blocking socket, to be its only one."""
        ...

    def stack_of(self, task: object) -> str:
        """Where a task that is not running waits, formatted like a traceback; innermost frame last."""
        ...

    async def checkpoint(self) -> None:
        """Let other tasks run once. A cancellation may be delivered here."""


_backend: RunVar[Backend | None] = RunVar("supervisor backend")


def _asyncio_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def current_backend() -> Backend:
    """Return the backend of the running event loop. Raises ``anyio.NoEventLoopError`` outside of one."""
    try:
        backend = _backend.get(None)
    except NoEventLoopError:
        # A callback of a plain asyncio program: no task runs, so anyio does not see the loop; asyncio itself does.
        if not _asyncio_runs():
            raise
        return AsyncioBackend()
    if backend is None:
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_run():
            from protocol.backend_trio import TrioBackend

            backend = TrioBackend()
        else:
            backend = AsyncioBackend()
        _backend.set(backend)
    return backend


def stack_text(coroutine: Any) -> str:
    """Format the frames of a suspended coroutine, outermost first."""
    lines: list[str] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        lines.extend(traceback.format_list(traceback.StackSummary.extract([(frame, frame.f_lineno)])))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return "".join(lines)


class AsyncioBackend:
    """asyncio, with whatever loop is running."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.waiter: Callable[[], Waiter] = self._loop.create_future
        """Of no class of ours: a task awaits the native one faster."""
        # The loop itself holds its tasks only weakly.
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, waiter: Any) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def spawn(self, main: Main, name: str) -> object:
        task = self._loop.create_task(main(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def current_task(self) -> object:
        return asyncio.current_task(self._loop)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        return self._loop.call_later(seconds, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # raised by a loop that is closed, and for no other reason
            self._loop.call_soon_threadsafe(callback)

    def receiver(self, sock: socket.socket, take: Take) -> Receiver:
        return AsyncioReceiver(sock, take, self._loop)

    def stack_of(self, task: object) -> str:
        assert isinstance(task, asyncio.Task)
        return stack_text(task.get_coro())

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)
