"""What surrounds an actor outside of the process of its tree: cells that stand for the others, and its own mailbox."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from protocol.backend import current_backend
from protocol.deadlines import Deadlines
from protocol.messages.common import Message, Request, reply_type
from supervisor import link_protocol as wire
from supervisor.clock import Clock, SystemClock
from supervisor.errors import CallFailed, ConnectionLost, MailboxFull, NotRunning
from supervisor.mailbox import Cell, LostWhy, Phase
from supervisor.monitor import Down
from supervisor.outbox import FrameTooLarge, Outbox
from supervisor.reasons import Reason
from supervisor.reply import Pending
from supervisor.stream import EventStream, Subscription

if TYPE_CHECKING:
    from protocol.messages.system import TreeNode
    from supervisor.introspection import Introspection


class Daemon:
    """The :class:`~supervisor.incarnation.Surroundings` at the far end of a link."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.clock: Clock = SystemClock()
        self.deadlines = Deadlines(self.clock.monotonic, self.clock.call_later)
        self.backend = current_backend()
        self.own: OwnCell | None = None
        self._cells: dict[str, RemoteCell] = {}
        self._numbers = 0
        self._calls: dict[int, Pending[Any]] = {}
        self._sends: dict[int, _Room] = {}
        self._watches: dict[tuple[Hashable, str], int] = {}
        self._notify: dict[int, Callable[[Down], None]] = {}
        self._stream = EventStream(self.clock)
        self._lost = False

    def cell(self, name: str) -> Cell:
        if self.own is not None and name == self.own.name:
            return self.own
        if name not in self._cells:
            self._cells[name] = RemoteCell(name, self)
        return self._cells[name]

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        self._stream.publish(topic, data)
        self.outbox.put(wire.Publish(topic, dict(data)), must=False)  # lost, like any event that nobody keeps up with

    def is_heard(self, topic: str) -> bool:
        return True  # by somebody in the tree, for all that is known here

    def subscribe(self, topics: Iterable[str], bound: int) -> Subscription:
        return self._stream.subscribe(topics, bound)

    @property
    def introspection(self) -> Introspection:
        raise RuntimeError("the tree lives in the daemon: an actor in a process of its own cannot look into it")

    def tree(self) -> TreeNode:
        raise RuntimeError("the tree lives in the daemon: an actor in a process of its own cannot see it")

    def request_shutdown(self, reason: str, exit_code: int) -> None:
        self.outbox.put(wire.RequestShutdown(reason, exit_code))

    def watch(self, watcher: Hashable, name: str, notify: Callable[[Down], None]) -> None:
        match watcher:
            case (_, "link", str(peer)) if self.own is not None and name == self.own.name:
                # The half of a link that tells the peer of our own end: a killed process could not, so the daemon does.
                self.outbox.put(wire.Link(peer))
            case _:
                number = self._next_number()
                self._watches[watcher, name] = number
                self._notify[number] = notify
                self.outbox.put(wire.Watch(number, name))

    def unwatch(self, watcher: Hashable, name: str) -> None:
        if (number := self._watches.pop((watcher, name), None)) is not None:
            del self._notify[number]
            self.outbox.put(wire.Unwatch(number))

    def fail(self, name: str, incarnation: int, reason: Reason) -> None:
        self.outbox.put(wire.Fail(wire.sendable(reason), name, incarnation))

    # ---------------------------------------------------------------- to actors of the tree

    def cast(self, to: str, message: Message) -> None:
        """Send a cast. Raises ``MailboxFull`` if the link takes no more, ``FrameTooLarge`` if it never could.

        After the end of the link it says nothing, as to one that does not run.
        """
        if self._lost:
            return
        if not self.outbox.put(wire.Cast(to, wire.kind_of(message), wire.body_of(message)), must=False):
            raise MailboxFull(f"the link to the daemon is full: nothing can be said to {to}")

    async def send(self, to: str, message: Message) -> None:
        """Send a cast and wait until there was room for it."""
        if self._lost:
            return
        number = self._next_number()
        room = self._sends[number] = _Room(self)
        try:
            if not self.outbox.put(wire.Cast(to, wire.kind_of(message), wire.body_of(message), number), must=False):
                raise MailboxFull(f"the link to the daemon is full: nothing can be said to {to}")
            await room.waiter
        finally:
            del self._sends[number]
        if room.error is not None:
            raise room.error

    def call(self, pending: Pending[Any]) -> None:
        """Send a call; it is settled when the answer comes, or by its own deadline."""
        if self._lost:
            pending.settle(None, NotRunning(f"{pending.to} cannot be asked: the link to the tree has ended"))
            return
        number = self._next_number()
        kind, body = wire.kind_of(pending.message), wire.body_of(pending.message)
        timeout = max(0.0, pending.deadline - self.clock.monotonic())
        try:
            sent = self.outbox.put(wire.Call(number, pending.to, kind, body, timeout), must=False)
        except FrameTooLarge as error:
            pending.settle(None, wire.UnknownMessage(str(error)))
            return
        if not sent:
            pending.settle(None, MailboxFull(f"the link to the daemon is full: {pending.to} cannot be asked"))
            return
        self._calls[number] = pending
        pending.on_done(lambda _: self._forget(number))

    def handle(self, frame: wire.WentDown | wire.Settled) -> None:
        """Take what the daemon answers or announces."""
        if isinstance(frame, wire.WentDown):
            if (notify := self._notify.get(frame.watch)) is not None:
                notify(Down(frame.name, frame.reason, frame.incarnation))
        elif (room := self._sends.get(frame.number)) is not None:
            room.error = None if frame.failure is None else wire.error_of(frame.failure)
            self.backend.wake(room.waiter)
        elif (pending := self._calls.pop(frame.number, None)) is not None:
            settle(pending, frame)

    def lose(self) -> None:
        """The link has ended, and the actor lives on for a while: fail at once whatever waits for the tree."""
        self._lost = True
        for room in self._sends.values():
            room.error = ConnectionLost("the link to the tree ended while a message waited for room")
            self.backend.wake(room.waiter)
        for pending in list(self._calls.values()):
            text = f"the link to the tree ended before {pending.to} answered; whether it was done is unknown"
            pending.settle(None, ConnectionLost(text))

    def lost(self, to: str, kind: str, why: LostWhy) -> None:
        """A message became a dead letter in this process."""
        self.outbox.put(wire.Lost(to, kind, why))

    def _forget(self, number: int) -> None:
        if self._calls.pop(number, None) is not None:
            self.outbox.put(wire.Forget(number))

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


class _Room:
    """Somebody who waits until the mailbox of a distant actor has room."""

    def __init__(self, daemon: Daemon) -> None:
        self.waiter = daemon.backend.waiter()
        self.error: CallFailed | None = None


class RemoteCell(Cell):
    """Stands for an actor of the tree. Its mailbox is in the daemon; what is put in here goes over the link."""

    __slots__ = ("_daemon",)

    def __init__(self, name: str, daemon: Daemon) -> None:
        super().__init__(name, daemon.clock, daemon.deadlines, daemon.backend, daemon.lost)
        self._daemon = daemon

    def cast(self, message: Message) -> None:
        self._daemon.cast(self.name, message)

    async def send(self, message: Message) -> None:
        await self._daemon.send(self.name, message)

    def call(self, pending: Pending[Any]) -> None:
        self._daemon.call(pending)


class OwnCell(Cell):
    """The actor's own mailbox: what the daemon delivered, and what the actor says to itself.

    The daemon keeps the bound for its own letters, and is told of each one that the actor takes in hand.
    """

    __slots__ = ("_daemon", "_delivered", "_pending")

    def __init__(self, name: str, daemon: Daemon) -> None:
        super().__init__(name, daemon.clock, daemon.deadlines, daemon.backend, daemon.lost)
        self._daemon = daemon
        self._delivered: dict[int, tuple[int, object]] = {}
        """By ``id()`` of the letter: its number, and the letter itself, so that the ``id`` stays its own."""
        self._pending: dict[int, Pending[Any]] = {}
        self.phase = Phase.STARTING
        self.after_take = self._after_take

    def receive(self, number: int, message: Any, timeout: float | None) -> None:
        """Put in what the daemon delivered: a cast, or with ``timeout`` a call whose answer goes back."""
        letter: Any = message
        if timeout is not None:
            letter = Pending(self.name, message, timeout, self.deadlines, self.backend)
            self._pending[number] = letter
            letter.on_done(lambda done: self._answer(number, done))
        self._delivered[id(letter)] = (number, letter)
        self.queue.append(letter)
        self.wake()

    def hand_back(self) -> None:
        """What the actor said to itself and will not hear goes to the daemon, which keeps it for the next incarnation.

        Of what was delivered the daemon has a copy. A process that is killed hands nothing back.
        """
        for letter in self.queue:
            if not isinstance(letter, Pending) and id(letter) not in self._delivered:
                try:
                    self._daemon.outbox.put(wire.Cast(self.name, wire.kind_of(letter), wire.body_of(letter)))
                except (TypeError, ValueError):
                    self.dead_letter(letter, "cannot be encoded")

    def obey(self, number: int, request: Request[None], timeout: float) -> None:
        """Put in an order of the daemon, which is told when it is carried out."""
        order = Pending(self.name, request, timeout, self.deadlines, self.backend)
        self._pending[number] = order
        order.on_done(lambda done: self._answer(number, done))
        self.put_system(order)

    def give_up(self, number: int) -> None:
        """The caller has left."""
        if (pending := self._pending.get(number)) is not None:
            pending.cancel()

    def _drop(self, letter: Message | Pending[Any]) -> None:
        self._tell_taken(letter)
        super()._drop(letter)

    def _after_take(self, letter: Message | Pending[Any]) -> bool:
        """False: the link has ended, and the daemon has this letter for the next incarnation."""
        told = self._tell_taken(letter)
        self._admit()
        return told

    def _tell_taken(self, letter: Message | Pending[Any]) -> bool:
        if (delivered := self._delivered.pop(id(letter), None)) is None:
            return True
        message = letter.message if isinstance(letter, Pending) else letter
        return self._daemon.outbox.put(wire.Taken(delivered[0], type(message).__name__))

    def _answer(self, number: int, pending: Pending[Any]) -> None:
        del self._pending[number]
        self._delivered.pop(id(pending), None)
        answer_call(self._daemon.outbox, number, pending)


def answer_call(outbox: Outbox, number: int, pending: Pending[Any]) -> None:
    """Send how a call that came over the link was settled."""
    failure = None if pending.error is None else wire.failure_of(pending.error)
    if failure is None:
        try:
            outbox.put(wire.Settled(number, value=wire.body_of(pending.result())))
        except (TypeError, ValueError) as error:
            failure = wire.failure_of(ConnectionLost(f"the answer of {pending.to} cannot be sent: {error}"))
    if failure is not None:
        outbox.put(wire.Settled(number, failure=failure))


def settle(pending: Pending[Any], answer: wire.Settled) -> None:
    """Settle a call that went over the link with the answer that came back."""
    if answer.failure is not None:
        pending.settle(None, wire.error_of(answer.failure))
        return
    request = type(pending.message)
    try:
        value = msgspec.msgpack.decode(answer.value, type=reply_type(request))
    except wire.UNREADABLE as error:
        text = f"{pending.to} answered {request.__name__} with something else: {error}"
        pending.settle(None, wire.UnknownMessage(text))
    else:
        pending.settle(value)
