"""What the binary hands to an application: its arguments, the signals, the clock, and the deadline of its stop."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

import anyio
import anyio.lowlevel

from supervisor.clock import Clock
from supervisor.host_protocol import Backend

STOP_WITHIN = 600.0
"""Default limit of a whole stop, in seconds."""


class Signals:
    """Numbers of the signals that this process received, in order. Bounded: the oldest are forgotten first.

    One reader at a time. It belongs to the binary, so a number that came before its reader, or while its reader was
    being restarted, is not lost.
    """

    def __init__(self, bound: int = 64) -> None:
        self._numbers: deque[int] = deque(maxlen=bound)
        self._news = anyio.Event()

    def put(self, number: int) -> None:
        """Add a number. Called on the event loop."""
        self._numbers.append(number)
        self._news.set()

    async def receive(self) -> int:
        """Return the next number, waiting for one. Cancelled, it takes none."""
        await anyio.lowlevel.checkpoint()
        while not self._numbers:
            self._news = anyio.Event()
            await self._news.wait()
        return self._numbers.popleft()

    def __aiter__(self) -> Signals:
        return self

    async def __anext__(self) -> int:
        return await self.receive()


class Deadline:
    """A limit that is kept by a thread of its own, since the event loop may be what is stuck.

    Args:
        seconds: how long it may take from :meth:`begin` on.
        passed: called on the thread when it has taken longer.
    """

    def __init__(self, seconds: float, passed: Callable[[], None]) -> None:
        self.seconds = seconds
        self._passed = passed
        self._begun: float | None = None
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._wake_in, False)
        threading.Thread(target=self._keep, name="root deadline", daemon=True).start()

    def begin(self) -> None:
        """Start to count, if that has not happened yet. Safe in a signal handler."""
        if self._begun is None:
            self._begun = time.monotonic()
            self._wake()

    def change(self, seconds: float) -> None:
        """Set another limit, counted from the same beginning."""
        self.seconds = seconds
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_in, b"!")
        except BlockingIOError:
            return  # it has not even read the last one yet

    def _keep(self) -> None:
        poll = select.poll()
        poll.register(self._wake_out, select.POLLIN)
        while True:
            wait = None if self._begun is None else max(0.0, self._begun + self.seconds - time.monotonic())
            if not poll.poll(None if wait is None else wait * 1000):
                self._passed()
                return
            os.read(self._wake_out, 64)


class Boot:
    """The argument of an application's function ``tree(boot) -> SupervisorSpec``."""

    def __init__(self, arguments: list[str], backend: Backend, clock: Clock, deadline: Deadline) -> None:
        self.arguments = arguments
        """What followed the binary's own options on the command line."""
        self.backend = backend
        self.clock = clock
        self.stop_count = 0
        """How many SIGTERM and SIGINT have come so far."""
        self.signals_wanted = False
        """Whether the application has asked for :attr:`signals`, and so decides by itself what a signal means."""
        self._signals = Signals()
        self._deadline = deadline

    @property
    def signals(self) -> Signals:
        """The signals received (SIGTERM, SIGINT, SIGHUP). Who asks for them has to act on them.

        If nobody does, the first SIGTERM or SIGINT stops the tree and SIGHUP means nothing.
        """
        self.signals_wanted = True
        return self._signals

    def deliver(self, number: int) -> None:
        """Put a signal where the application finds it."""
        self._signals.put(number)

    def set_root_deadline(self, seconds: float) -> None:
        """Limit how long the stop may take, from the first stop signal or the tree's own request on.

        When it has passed, all that runs under process hosts is killed, all stacks are dumped, and the exit code is 70.
        """
        self._deadline.change(seconds)
