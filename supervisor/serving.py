"""The loop of ``gen_server``: takes one message after another out of a mailbox and runs its handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.errors import HandlerFailed, Refused
from supervisor.monitor import Down, Inject, Suspend, SystemMessage, Trace
from supervisor.reasons import Crash, unwrapped
from supervisor.reply import Pending, Reply, as_call_failure
from supervisor.tracing import Tracer

if TYPE_CHECKING:
    from protocol.backend import Backend
    from protocol.messages.common import Message
    from supervisor.actor import Actor, Handler
    from supervisor.mailbox import Cell

_TURN = 128
"""After so many messages in a row the others on the loop get a turn: handlers that never wait must not starve them."""


class Service:
    """The messages that one incarnation has in hand, and the calls that it has yet to answer."""

    __slots__ = ("_actor", "_backend", "_cell", "_held", "_in_hand", "_leaving", "_tracer", "last_kind", "suspended")

    def __init__(self, actor: Actor, cell: Cell, backend: Backend) -> None:
        self._actor = actor
        self._cell = cell
        self._backend = backend
        self._held: set[Pending[Any]] = set()
        self._in_hand: list[Pending[Any]] = []
        self._leaving = False
        self._tracer: Tracer | None = None
        self.suspended = False
        """Whether it handles nothing but system messages."""
        self.last_kind: type | None = None
        """The type of the newest message that it began to handle."""

    async def run(self) -> None:
        """Serve until told to :meth:`leave`, or until a handler fails: its error comes out of here."""
        cell, actor = self._cell, self._actor
        queue, plain, in_hand = cell.queue, actor.__plain__, self._in_hand
        cell.urgent = True
        # This is the path of every message, and the parts are laid out for it: one look for all that is rare, and no
        # coroutine of ours between the loop and a plain handler. Either would cost a cast a fifth more.
        while True:
            for _ in range(_TURN):
                if cell.urgent:
                    if self._leaving:
                        return
                    if (told := self._next_system()) is not None:
                        await self._handle_system(told)
                        continue
                    if self.suspended or (self._tracer is not None and not queue):
                        await self._next_wake()
                        continue
                    if self._tracer is None:
                        cell.urgent = False
                    else:
                        self._tracer.letter(queue[0])
                if not queue:
                    await cell.arrival()
                    continue
                letter = queue.popleft()
                if cell.after_take is not None and not cell.after_take(letter):
                    continue
                if isinstance(letter, Pending):
                    letter.queued_in = None
                    if letter.done:
                        continue
                    message = letter.message
                    kind = type(message)
                    if (run := plain.get(kind)) is None:
                        await self._handle(message, letter)
                        continue
                    self.last_kind = kind
                    in_hand.append(letter)
                    try:
                        letter.settle(await run(actor, message))
                    except (Refused, ExceptionGroup) as error:
                        self._refuse(message, error)
                    in_hand.clear()
                elif (run := plain.get(type(letter))) is None:
                    await self._handle(letter, None)
                else:
                    self.last_kind = type(letter)
                    try:
                        await run(actor, letter)
                    except (Refused, ExceptionGroup) as error:
                        self._refuse(letter, error)
            await self._backend.checkpoint()

    def leave(self) -> None:
        """Handle no message after the one in hand."""
        self._leaving = True
        self._cell.urgent = True
        self._cell.wake()

    def fail_in_hand(self, crash: Crash) -> None:
        """Answer what was in hand with the error that ended its handler: not with that of a call it had made."""
        for pending in self._in_hand:
            pending.settle(None, HandlerFailed(crash.error_type, crash.text, crash.traceback))

    def fail_rest(self) -> None:
        """Fail the calls that were taken and will not be answered."""
        orders = [one for one in self._cell.system or () if isinstance(one, Pending)]
        for pending in [*self._in_hand, *self._held, *orders]:
            pending.settle(None, self._cell.refusal())
        self._in_hand.clear()

    async def _handle(self, message: Message, pending: Pending[Any] | None) -> None:
        """Handle what no plain handler takes."""
        handler = self._actor.__handlers__.get(type(message))
        if handler is None:
            self._not_handled(message, pending)
            return
        self.last_kind = type(message)
        try:
            await self._handle_with_replies(handler, message, pending)
        except (Refused, ExceptionGroup) as error:
            self._refuse(message, error)
        self._in_hand.clear()

    async def _handle_with_replies(self, handler: Handler, message: Message, pending: Pending[Any] | None) -> None:
        batch: list[tuple[Message, Pending[Any] | None]] = [(message, pending)]
        while len(batch) < handler.limit:
            neighbour = self._cell.take_next(type(message))
            if neighbour is None:
                break
            batch.append(neighbour)
            if self._tracer is not None:
                self._tracer.letter(neighbour[1] or neighbour[0])
        for _, waiting in batch:
            if waiting is not None:
                waiting.held_by(self._held)
                self._in_hand.append(waiting)
        tokens = [(one, Reply(waiting)) for one, waiting in batch]
        if handler.mode == "batch":
            await handler.run(self._actor, tokens)
        else:
            await handler.run(self._actor, *tokens[0])

    async def _handle_system(self, message: SystemMessage) -> None:
        if isinstance(message, Down):
            handler = self._actor.__handlers__.get(Down)
            if handler is not None:
                self.last_kind = Down
                if self._tracer is not None:
                    self._tracer.down(message)
                await handler.run(self._actor, message)
        elif isinstance(message, Inject):
            raise message.error
        elif isinstance(message, Trace):
            self._tracer = Tracer(self._actor.context) if message.on else None
        elif not message.done:  # nobody waits for an order any more whose time has passed
            self.suspended = isinstance(message.message, Suspend)
            message.settle(None)

    def _next_system(self) -> SystemMessage | None:
        """Take the next system message; while suspended not those that a handler would be run for."""
        system = self._cell.system
        if not system:
            return None
        if not self.suspended:
            return system.popleft()
        for place, message in enumerate(system):
            if not isinstance(message, Down):
                del system[place]
                return message
        return None

    async def _next_wake(self) -> None:
        """Wait until anything comes, whatever lies in the mailbox already."""
        self._cell.waiter = waiter = self._backend.waiter()
        try:
            await waiter
        finally:
            self._cell.waiter = None

    def _not_handled(self, message: Message, pending: Pending[Any] | None) -> None:
        # A message of a type that the actor does not know comes from outside; it must not be able to crash it.
        text = f"{self._cell.name} does not handle {type(message).__name__}"
        if pending is not None:
            pending.settle(None, as_call_failure(Refused(text, code="not_handled")))
        else:
            self._cell.dead_letter(message, "not handled")

    def _refuse(self, message: Message, error: Exception) -> None:
        """Answer with a refusal, also one that comes out of a task group alone. Any other error is raised again."""
        refusal = unwrapped(error)
        if not isinstance(refusal, Refused):
            raise error
        if not self._in_hand:
            self._cell.dead_letter(message, "refused")
        for pending in self._in_hand:
            pending.settle(None, as_call_failure(refusal))
