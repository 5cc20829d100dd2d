"""The trio half of the seam in ``backend.py``. Only imported where trio runs the program."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import socket
from collections.abc import Callable, Generator
from typing import Any

import trio

from protocol.backend import Main, TimerHandle, stack_text
from protocol.boundary import Logged
from protocol.receiver import Receiver, Take, read_once

_logged = Logged("the callback of a timer failed")
"""As asyncio does; an error of the task that runs the timers would end the whole program."""

_COMPACT_AT = 128  # below this many cancelled timers the heap is left alone


class TrioWaiter:
    """A one-shot wait on trio's own rescheduling, which is what ``trio.Event`` is made of."""

    __slots__ = ("_task", "_woken")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def __await__(self) -> Generator[Any, Any, None]:
        if self._woken:
            return
        self._task = trio.lowlevel.current_task()
        yield from trio.lowlevel.wait_task_rescheduled(self._abort).__await__()  # noqa: ASYNC105  (this is its await)

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class TrioTimer:
    """An entry of the timer heap. ``callback`` is ``None`` once it has fired or was cancelled."""

    __slots__ = ("_backend", "callback", "due", "order")

    def __init__(self, backend: TrioBackend, due: float, order: int, callback: Callable[[], None]) -> None:
        self._backend = backend
        self.due = due
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: TrioTimer) -> bool:
        return (self.due, self.order) < (other.due, other.order)

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._backend.timer_cancelled()


class TrioReceiver:
    """A task of nobody's that waits and reads."""

    def __init__(self, sock: socket.socket, take: Take, backend: TrioBackend) -> None:
        self._socket = sock
        self._take = take
        self._backend = backend
        self._running = False
        self._resumed = TrioWaiter()
        self._reading = False
        self._over = False

    def resume(self) -> None:
        if not self._over:
            self._reading = True
            self._resumed.wake()
            if not self._running:
                self._running = True
                self._backend.spawn(self._run, "receiver")

    def pause(self) -> None:
        self._reading = False

    def close(self) -> None:
        if not self._over:
            self._over = True
            self._resumed.wake()
            trio.lowlevel.notify_closing(self._socket)

    async def _run(self) -> None:
        while not self._over:
            if not self._reading:
                self._resumed = TrioWaiter()
                await self._resumed
                continue
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except trio.ClosedResourceError:
                return
            if not self._reading or self._over or (data := read_once(self._socket)) is None:
                continue
            if not data or isinstance(data, OSError):
                self._over = True
            self._take(data)


class TrioBackend:
    """trio, with one timer task for the whole run (trio itself has deadlines on scopes only)."""

    __slots__ = ("_alarm", "_cancelled", "_heap", "_order", "_running", "_token", "_wakes_at")

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._heap: list[TrioTimer] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._running = False
        self._alarm = TrioWaiter()
        self._wakes_at = float("inf")

    waiter = TrioWaiter

    def wake(self, waiter: Any) -> None:
        waiter.wake()

    def spawn(self, main: Main, name: str) -> object:
        return trio.lowlevel.spawn_system_task(main, name=name, context=contextvars.copy_context())

    def current_task(self) -> object:
        return trio.lowlevel.current_task()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        timer = TrioTimer(self, trio.current_time() + seconds, next(self._order), callback)
        heapq.heappush(self._heap, timer)
        if not self._running:
            self._running = True
            self.spawn(self._run_timers, "supervisor timers")
        elif timer.due < self._wakes_at:
            self._alarm.wake()
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._token.run_sync_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except trio.RunFinishedError:
            return

    def receiver(self, sock: socket.socket, take: Take) -> Receiver:
        return TrioReceiver(sock, take, self)

    def stack_of(self, task: object) -> str:
        assert isinstance(task, trio.lowlevel.Task)
        return stack_text(task.coro)

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    def timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > _COMPACT_AT and self._cancelled * 2 > len(self._heap):
            self._heap[:] = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def _run_timers(self) -> None:
        while True:
            self._wakes_at = float("-inf")  # callbacks may add timers: no alarm is needed before the next look
            while self._heap and (self._heap[0].callback is None or self._heap[0].due <= trio.current_time()):
                timer = heapq.heappop(self._heap)
                callback, timer.callback = timer.callback, None
                if callback is None:
                    self._cancelled -= 1
                else:
                    with _logged:
                        callback()
            self._alarm = TrioWaiter()
            self._wakes_at = self._heap[0].due if self._heap else float("inf")
            with trio.CancelScope(deadline=self._wakes_at):
                await self._alarm
