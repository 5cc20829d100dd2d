"""What passes over a link while its actor lives: letters, calls, monitors, publications. The tree's side."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from protocol.messages.common import Message
from supervisor import link_protocol as wire
from supervisor.errors import CallFailed, ConnectionLost, MailboxFull
from supervisor.link_child import answer_call, settle
from supervisor.monitor import Down, Inject, Suspend, SystemMessage, Trace
from supervisor.outbox import Outbox
from supervisor.reasons import Normal, Reason
from supervisor.reply import Pending

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from protocol.backend import Waiter
    from supervisor.incarnation import Surroundings
    from supervisor.mailbox import Cell

WINDOW = 32
"""Letters that may be under way to a child that has not taken them in hand: enough to keep a batch handler busy."""


MOST = 10_000
"""Calls, sends that wait for room, monitors and links of one far end, of each. What they cost is the tree's memory."""


class Traffic:
    """Both directions of one link, on the daemon's side. Used on the event loop only; nothing waits for the peer."""

    def __init__(self, cell: Cell, surroundings: Surroundings, outbox: Outbox, tasks: TaskGroup) -> None:
        self._cell = cell
        self._around = surroundings
        self._outbox = outbox
        self._tasks: TaskGroup | None = tasks
        self._bodies = wire.Bodies()
        self._letters = 0
        self._under_way: dict[int, Message | Pending[Any]] = {}
        """Sent, and not yet in the actor's hands. In order."""
        self._held: dict[int, Pending[Any]] = {}
        """Calls that the actor has to answer, under way or in its hands."""
        self._orders: dict[int, Pending[Any]] = {}
        """To suspend or to resume, sent and not yet answered."""
        self.suspended = False
        """Whether the actor has said that it handles nothing."""
        self._calls: dict[int, Pending[Any]] = {}
        """Calls of the child to actors of the tree."""
        self._watches: dict[int, Cell] = {}
        """The cells, not the names: a watched name that is not used yet is remembered only while somebody holds it."""
        self._links: list[tuple[str, int]] = []
        self._sending = 0
        """Sends of the child that wait for room."""
        self._waiter: Waiter | None = None
        self._fed = False
        self._ended = False

    # ---------------------------------------------------------------- to the child

    async def feed(self) -> None:
        """Take letters out of the cell and send them, from the ack to :meth:`stop_feeding`."""
        cell = self._cell
        while not self._fed:
            while cell.system:
                self._pass_on(cell.system.popleft())
            if self._has_room() and (letter := cell.take()) is not None:
                self._deliver(letter)
            else:
                self._waiter = cell.waiter = cell.backend.waiter()
                await self._waiter

    def stop_feeding(self) -> None:
        """Take no more letters: the incarnation is about to end."""
        self._fed = True
        if self._waiter is not None:
            self._cell.backend.wake(self._waiter)

    def _has_room(self) -> bool:
        # With letters under way the child will report one taken, and that wakes the feeder: it never waits in vain.
        return len(self._under_way) < WINDOW and not (self._under_way and self._outbox.full)

    def _pass_on(self, message: SystemMessage) -> None:
        if isinstance(message, Inject):
            self._outbox.put(wire.Inject(type(message.error).__name__, str(message.error)))
        elif isinstance(message, Trace):
            self._outbox.put(wire.Trace(message.on))
        elif isinstance(message, Pending) and not message.done:
            self._letters += 1
            number = self._letters
            self._orders[number] = message
            message.on_done(lambda _: self._order_given_up(number))
            kind = wire.Suspend if isinstance(message.message, Suspend) else wire.Resume
            self._outbox.put(kind(number, message.deadline - self._cell.clock.monotonic()))

    def _deliver(self, letter: Message | Pending[Any]) -> None:
        self._letters += 1
        number = self._letters
        message = letter.message if isinstance(letter, Pending) else letter
        timeout = letter.deadline - self._cell.clock.monotonic() if isinstance(letter, Pending) else None
        try:
            self._outbox.put(wire.Deliver(number, wire.kind_of(message), wire.body_of(message), timeout))
        except (TypeError, ValueError) as error:
            if isinstance(letter, Pending):
                letter.settle(None, wire.UnknownMessage(f"{type(message).__name__} cannot be sent: {error}"))
            else:
                self._cell.dead_letter(message, "cannot be encoded")
            return
        self._under_way[number] = letter
        if isinstance(letter, Pending):
            self._held[number] = letter
            letter.on_done(lambda _: self._caller_left(number))

    def _caller_left(self, number: int) -> None:
        if self._held.pop(number, None) is not None and not self._ended:
            self._outbox.put(wire.GiveUp(number))

    def _order_given_up(self, number: int) -> None:
        if number in self._orders and not self._ended:
            self._outbox.put(wire.GiveUp(number))

    # ---------------------------------------------------------------- from the child

    def handle(self, frame: wire.Frame) -> None:
        """Act on a frame that is not about the life of the process."""
        match frame:
            case wire.Taken(letter=number):
                self._taken(number)
            case wire.Deaf():
                self.refuse_waiting()
            case wire.Settled(number=number):
                self._taken(number)
                if (pending := self._held.pop(number, None)) is not None:
                    settle(pending, frame)
                elif (order := self._orders.pop(number, None)) is not None:
                    if frame.failure is None:  # also one that was obeyed when nobody waited for it any more
                        self.suspended = isinstance(order.message, Suspend)
                    settle(order, frame)
            case wire.Cast():
                self._cast(frame)
            case wire.Call():
                self._call(frame)
            case wire.Forget(call=number):
                if (pending := self._calls.get(number)) is not None:
                    pending.cancel()
            case wire.Lost(to=name, why=why):
                self._around.cell(name).dead_letter(frame, why)
            case wire.Publish(topic=topic, data=data):
                self._around.publish(topic, data)
            case wire.RequestShutdown(reason=reason, exit_code=code):
                self._around.request_shutdown(reason, code)
            case wire.Watch(watch=number, name=name):
                self._count(self._watches, number)
                self._watches[number] = self._around.cell(name)
                self._around.watch((self, number), name, lambda down: self._tell_down(number, down))
            case wire.Unwatch(watch=number):
                if (watched := self._watches.pop(number, None)) is not None:
                    self._around.unwatch((self, number), watched.name)
            case wire.Link(name=name):
                self._count(self._links)
                self._links.append((name, self._around.cell(name).next_to_end))
            case wire.Fail(reason=reason, name=name, incarnation=incarnation):
                self._around.fail(name, incarnation, reason)

    def refuse_waiting(self) -> None:
        """The actor takes no more: fail the calls that are under way to it, as those in its mailbox have been."""
        for letter in [*self._under_way.values(), *self._orders.values(), *(self._cell.system or ())]:
            if isinstance(letter, Pending):
                letter.settle(None, self._cell.refusal())

    def refuse_all(self) -> None:
        """It has begun to end: fail what it had yet to answer, too, since only here is known whether it comes back."""
        self.refuse_waiting()
        for pending in list(self._held.values()):
            pending.settle(None, self._cell.refusal())

    def _count(self, known: Collection[object], number: int | None = None) -> None:
        if number in known:
            raise wire.BadFrame(f"the number {number} is in use")
        if len(known) >= MOST:
            raise wire.BadFrame(f"more than {MOST} monitors or links")

    def _taken(self, number: int) -> None:
        if self._under_way.pop(number, None) is not None and self._waiter is not None:
            self._cell.backend.wake(self._waiter)

    def _cast(self, frame: wire.Cast) -> None:
        cell = self._around.cell(frame.to)
        try:
            message = self._bodies.decode(frame.kind, frame.body)
            if frame.sent is None or self._tasks is None:
                cell.cast(message)
            elif self._sending >= MOST:
                full = MailboxFull(f"{MOST} messages wait already until somebody has room for them")
                self._outbox.put(wire.Settled(frame.sent, failure=wire.failure_of(full)))
            else:
                self._sending += 1
                self._tasks.start_soon(self._send, cell, message, frame.sent)
        except CallFailed as error:
            # The child's cast returned long ago, so nobody can be told; it is counted like any letter that was lost.
            cell.dead_letter(frame, "mailbox full" if isinstance(error, MailboxFull) else "not understood")

    async def _send(self, cell: Cell, message: Message, number: int) -> None:
        try:
            await cell.send(message)
        except CallFailed as error:
            self._outbox.put(wire.Settled(number, failure=wire.failure_of(error)))
        else:
            self._outbox.put(wire.Settled(number))
        finally:
            self._sending -= 1

    def _call(self, frame: wire.Call) -> None:
        number = frame.call
        if number in self._calls:
            raise wire.BadFrame(f"the number {number} is in use")
        try:
            if len(self._calls) >= MOST:
                raise MailboxFull(f"{MOST} calls are under way already")
            request = self._bodies.decode(frame.kind, frame.body)
        except CallFailed as error:
            self._outbox.put(wire.Settled(number, failure=wire.failure_of(error)))
            return
        deadlines, backend = self._cell.deadlines, self._cell.backend
        pending: Pending[Any] = Pending(frame.to, request, frame.timeout, deadlines, backend)  # type: ignore[arg-type]
        self._calls[number] = pending
        pending.on_done(lambda done: self._answer(number, done))
        self._around.cell(frame.to).call(pending)

    def _answer(self, number: int, pending: Pending[Any]) -> None:
        del self._calls[number]
        if not self._ended:
            answer_call(self._outbox, number, pending)

    def _tell_down(self, number: int, down: Down) -> None:
        self._outbox.put(wire.WentDown(number, down.name, wire.sendable(down.reason), down.incarnation))

    # ---------------------------------------------------------------- the end

    def hear_out(self) -> None:
        """The far end is dead, and what is still heard of it are its last words: nobody waits there for room."""
        self._tasks = None

    def end(self, reason: Reason) -> None:
        """The incarnation is over: put back what the actor never had in hand, and settle everything else."""
        self._ended = True
        self.refuse_waiting()
        for number, watched in self._watches.items():
            self._around.unwatch((self, number), watched.name)
        for pending in list(self._calls.values()):
            pending.cancel()
        held, self._held = self._held, {}
        for number, pending in held.items():
            if number in self._under_way:
                pending.settle(None, self._cell.refusal())
            else:
                text = f"{self._cell.name} ended ({reason}) with the call in hand; its outcome is unknown"
                pending.settle(None, ConnectionLost(text))
        casts = [letter for letter in self._under_way.values() if not isinstance(letter, Pending)]
        self._under_way.clear()
        self._cell.queue.extendleft(reversed(casts))
        if not isinstance(reason, Normal):
            for name, incarnation in self._links:
                self._around.fail(name, incarnation, reason)
