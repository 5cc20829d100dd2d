"""Writing to a socket that stays open long: in as few system calls as there are turns of the event loop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import anyio

from protocol.backend import Backend, Waiter


class Writer:
    """The only writer of one non-blocking socket.

    Args:
        take: returns the next bytes to write, nothing if there are none.
        within: seconds after which a reader is given up whose full buffer has not become three quarters empty: before
            that Linux does not call a Unix socket writable.
        broken: called once when nothing can be written any more: with the error, or ``TimeoutError``.
    """

    def __init__(
        self,
        sock: socket.socket,
        backend: Backend,
        take: Callable[[], bytes],
        within: float,
        broken: Callable[[OSError], None],
    ) -> None:
        self._socket = sock
        self._backend = backend
        self._take = take
        self._within = within
        self._broken = broken
        self._unsent = memoryview(b"")
        self.due = False
        """Something is written at the end of this turn."""
        self.blocked = False
        """The socket takes no more at present."""
        self._over = False
        self._waiting: list[Waiter] = []

    def soon(self) -> None:
        """Write at the end of this turn of the loop, together with what else is said in it."""
        if not self.due:
            self.due = True
            self._backend.call_soon(self._end_of_turn)

    def now(self) -> None:
        """Write what the socket takes at once; what it does not take follows by itself."""
        if not self.blocked and not self._over and not self._send_all():
            self.blocked = True
            self._backend.spawn(self._until_writable, "writer")

    def first_now(self) -> None:
        """Write now if it is the first time in this turn, else at its end."""
        if not self.due:
            self.now()
        self.soon()

    async def empty(self) -> None:
        """Wait until everything is written, or nothing can be any more."""
        while (self.blocked or self.due) and not self._over:
            waiter = self._backend.waiter()
            self._waiting.append(waiter)
            await waiter

    def close(self) -> None:
        """Write what the socket takes at once, and nothing afterwards. Closing twice is harmless."""
        if not self._over:
            self._send_all()
            self._end()

    def _end_of_turn(self) -> None:
        self.due = False
        self.now()

    def _send_all(self) -> bool:
        """Return whether all has been written, or nothing ever will be."""
        try:
            while True:
                if not self._unsent:
                    self._unsent = memoryview(self._take())
                if not self._unsent:
                    break
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error)
            return True
        if not self.due:
            self._wake()
        return True

    async def _until_writable(self) -> None:
        if self._over:
            return
        with anyio.move_on_after(self._within) as scope, suppress(anyio.ClosedResourceError, OSError):
            await anyio.wait_writable(self._socket)
        self.blocked = False
        if scope.cancelled_caught:
            self._fail(TimeoutError())
        else:
            self.now()

    def _fail(self, error: OSError) -> None:
        if not self._over:
            self._end()
            self._broken(error)

    def _end(self) -> None:
        self._over = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiting:
            self._backend.wake(waiter)
        self._waiting.clear()
