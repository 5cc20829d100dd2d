"""The handle by which actors are addressed: a name, never an incarnation."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from supervisor.errors import CallingSelf
from supervisor.reply import Pending

if TYPE_CHECKING:
    from protocol.messages.common import Message, Request
    from supervisor.mailbox import Cell

R = TypeVar("R")


class Ref:
    """Says things to the actor of a name, whichever incarnation serves it now. It survives restarts.

    Two refs of one name in one tree are equal.
    """

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def name(self) -> str:
        """The name of the actor: the ``id`` of its child specification."""
        return self._cell.name

    @property
    def cell(self) -> Cell:
        """What the ref points at; for the library itself and for links."""
        return self._cell

    def cast(self, message: Message) -> None:
        """Say something and expect no answer (``gen_server:cast/2``). Never blocks.

        To an actor that has ended it becomes a dead letter.

        Raises:
            MailboxFull: the mailbox is full and its overflow policy is ``wait`` or ``reject``.
        """
        self._cell.cast(message)

    async def send(self, message: Message) -> None:
        """Like :meth:`cast`, but wait for room where the overflow policy of the mailbox is ``wait``."""
        await self._cell.send(message)

    async def call(self, request: Request[R], *, timeout: float = 5.0) -> R:
        """Ask, and wait at most ``timeout`` seconds for the answer (``gen_server:call/3``). Never hangs.

        Raises:
            CallFailed: one of its subclasses, at once where it is known: ``NotRunning``, ``Restarting``, ``Stopping``,
                ``MailboxFull``, ``CallTimeout``, ``ConnectionLost``, ``CallingSelf``, ``HandlerFailed``.
        """
        cell = self._cell
        # One that waits for messages is in no handler that could call.
        if cell.waiter is None and cell.serving_task is not None and cell.serving_task is cell.backend.current_task():
            raise CallingSelf(f"{cell.name} calls itself from its own handler")
        pending = Pending(cell.name, request, timeout, cell.deadlines, cell.backend)
        cell.call(pending)
        if pending.done:
            return await pending.wait()
        # As there, without its coroutine: this is the path of nearly every call.
        pending.waiter = waiter = cell.backend.waiter()
        try:
            await waiter
        finally:
            if not pending.done:
                pending.cancel()
        return pending.result()

    def request(self, request: Request[R], *, timeout: float) -> Pending[R]:
        """Ask without waiting; the answer is awaited, or comes by callback, from the :class:`Pending` returned.

        Awaiting it fails with ``CallingSelf`` in a handler of the very actor that is asked.
        """
        cell = self._cell
        pending = Pending(cell.name, request, timeout, cell.deadlines, cell.backend)
        pending.asked = cell
        cell.call(pending)
        return pending

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other._cell is self._cell

    def __hash__(self) -> int:
        return hash(id(self._cell))

    def __repr__(self) -> str:
        return f"<Ref {self.name}>"
