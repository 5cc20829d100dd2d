"""The mailbox of an actor, and the :class:`Cell` that keeps it alive over restarts.

A cell belongs to a *name*. It outlives incarnations: queued casts stay in it, in order, over a restart, while calls
that wait in it fail at once (kameo 0.22 made the same choice; OTP loses both). Whoever serves the actor (a task in
this process, or the link to a process) takes messages out; everybody else only puts them in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from supervisor.errors import CallFailed, MailboxFull, NotRunning, Restarting, SpecError, Stopping
from supervisor.monitor import Down
from supervisor.reply import Pending

if TYPE_CHECKING:
    from protocol.backend import Backend, Waiter
    from protocol.deadlines import Deadlines
    from protocol.messages.common import Message
    from supervisor.clock import Clock
    from supervisor.monitor import SystemMessage

Overflow = Literal["wait", "reject", "drop_oldest", "drop_newest"]
LostWhy = Literal[
    "stopping", "not running", "mailbox full", "not handled", "not understood", "refused", "cannot be encoded"
]
"""Why nobody handled a message. Dead letters are counted by these words, so there are few of them."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """How many messages an actor may have waiting, and what happens to one more.

    ``wait``: ``cast`` raises ``MailboxFull`` and ``send`` waits for room; ``reject``: both raise; ``drop_oldest`` and
    ``drop_newest``: one message becomes a dead letter (a call among them fails with ``MailboxFull``).
    """

    bound: int = 1024
    overflow: Overflow = "wait"

    def __post_init__(self) -> None:
        if not isinstance(self.bound, int) or self.bound < 1:
            raise SpecError(f"mailbox: the bound must be a whole number from 1, not {self.bound!r}")
        if self.overflow not in ("wait", "reject", "drop_oldest", "drop_newest"):
            raise SpecError(
                f"mailbox: overflow must be wait, reject, drop_oldest or drop_newest, not {self.overflow!r}"
            )


class Phase(IntEnum):
    """What becomes of a message, by what the actor of this name is doing. Up to ``ACCEPTING`` casts are queued."""

    RUNNING = 0
    STARTING = 1
    """Its first incarnation is starting: casts and calls wait for it."""
    DECLARED = 2
    """The tree knows the name and has not come to it: casts wait; calls fail, for they would wait on a later actor."""
    RESTARTING = 3
    """Between two incarnations: casts wait; calls fail."""
    STOPPING = 4
    ENDED = 5
    """Stopped for good, or never known."""


ACCEPTING = Phase.RESTARTING


class Cell:
    """Everything that belongs to a name rather than to an incarnation. Used on the event loop only."""

    __slots__ = (
        "__weakref__",
        "abandoned",
        "after_take",
        "backend",
        "bound",
        "clock",
        "deadlines",
        "incarnation",
        "last_exit",
        "name",
        "on_dead_letter",
        "overflow",
        "phase",
        "queue",
        "senders",
        "serving_task",
        "system",
        "ticks",
        "urgent",
        "waiter",
        "watchers",
    )

    def __init__(
        self,
        name: str,
        clock: Clock,
        deadlines: Deadlines,
        backend: Backend,
        on_dead_letter: Callable[[str, str, LostWhy], None],
    ) -> None:
        self.name = name
        self.clock = clock
        self.deadlines = deadlines
        """Of the calls to this name."""
        self.backend = backend
        self.on_dead_letter = on_dead_letter
        """Told of each dead letter: name of the actor, type of the message, why."""
        self.phase = Phase.ENDED
        self.bound = 1024
        self.overflow: Overflow = "wait"
        self.queue: deque[Message | Pending[Any]] = deque()
        self.system: deque[SystemMessage] | None = None
        self.ticks: list[Message] | None = None
        """The timers' messages of the present incarnation; those that were taken are forgotten at the next one."""
        self.abandoned = False
        """A call was settled while it lay in the queue."""
        self.urgent = False
        """Something may be there that goes before the queue: a system message, or the order to leave."""
        self.after_take: Callable[[Message | Pending[Any]], bool] | None = None
        """Told of each letter that is taken out, while anybody wants to know. False: it is another's, so let it be."""
        self.waiter: Waiter | None = None
        """Of whoever serves this cell, while that has nothing to do."""
        self.senders: deque[_Turn] | None = None
        self.serving_task: object = None
        """The task that runs the handlers, so that a call from it to itself is recognised."""
        self.incarnation = 0
        """The number of the current or newest incarnation, from 1."""
        self.last_exit: Down | None = None
        self.watchers: dict[object, Callable[[Down], None]] | None = None

    def configure(self, mailbox: Mailbox) -> None:
        """Take the bound and the policy of the actor that is about to serve this name."""
        self.bound = mailbox.bound
        self.overflow = mailbox.overflow

    @property
    def next_to_end(self) -> int:
        """The number of the incarnation whose end comes next: of the living one, or of the one that follows."""
        ended = self.last_exit is not None and self.last_exit.incarnation == self.incarnation
        return self.incarnation + 1 if ended or self.incarnation == 0 else self.incarnation

    # -- putting in

    def cast(self, message: Message) -> None:
        """Queue a message, or let it die by the policy. Raises ``MailboxFull`` as :meth:`Ref.cast` says."""
        if self.phase > ACCEPTING:
            self.dead_letter(message, "stopping" if self.phase is Phase.STOPPING else "not running")
        elif len(self.queue) < self.bound or self._has_room() or self._made_room(message):
            self.queue.append(message)
            if (waiter := self.waiter) is not None:
                self.waiter = None
                self.backend.wake(waiter)

    async def send(self, message: Message) -> None:
        """Queue a message, waiting for room where the overflow policy is ``wait``; senders are served in turn."""
        if self.overflow != "wait" or self.phase > ACCEPTING:
            await self.backend.checkpoint()  # it never has to wait, and must not starve the reader for that
            self.cast(message)
            return
        if self._has_room():
            self.cast(message)
            return
        turn = _Turn(message, self.backend.waiter())
        if self.senders is None:
            self.senders = deque()
        self.senders.append(turn)
        if self.after_take is None:
            self.after_take = self._admit_next
        try:
            await turn.waiter
        finally:
            if turn in self.senders:
                self.senders.remove(turn)

    def call(self, pending: Pending[Any]) -> None:
        """Queue a call, or settle it at once with the reason why it cannot be served."""
        phase = self.phase
        if phase > Phase.STARTING:
            pending.settle(None, self.refusal())
        elif len(self.queue) < self.bound or self._has_room() or self.overflow == "drop_oldest":
            if len(self.queue) >= self.bound:
                self._drop(self.queue.popleft())
            pending.queued_in = self
            self.queue.append(pending)
            if (waiter := self.waiter) is not None:
                self.waiter = None
                self.backend.wake(waiter)
        else:
            pending.settle(None, MailboxFull(f"the mailbox of {self.name} is full ({self.bound} messages)"))

    def put_tick(self, message: Message) -> None:
        """Queue a timer's message, past the bound: a tick is not lost because the mailbox is full at that moment.

        Of a message that still waits no second copy is queued, so timers cannot fill a mailbox.
        """
        waiting = {id(letter) for letter in self.queue}
        if self.phase <= ACCEPTING and id(message) not in waiting:
            self.ticks = [*(tick for tick in self.ticks or () if id(tick) in waiting), message]
            self.queue.append(message)
            self.wake()

    def drop_downs(self, name: str) -> None:
        """Take out the notices about this name that wait."""
        if self.system:
            self.system = deque(one for one in self.system if not (isinstance(one, Down) and one.name == name))

    def drop_ticks(self) -> None:
        """Take out the timers' messages that wait: they die with the incarnation that had set the timers."""
        if self.ticks:
            ticks, self.ticks = {id(tick) for tick in self.ticks}, None
            self._keep(letter for letter in self.queue if id(letter) not in ticks)

    def put_system(self, message: SystemMessage) -> None:
        """Queue a system message. These are few, never dropped for want of room, and served before all others."""
        if self.system is None:
            self.system = deque()
        self.system.append(message)
        self.urgent = True
        self.wake()

    def wake(self) -> None:
        """Wake whoever serves this cell."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            self.backend.wake(waiter)

    # -- taking out

    def take(self) -> Message | Pending[Any] | None:
        """Take the next message, or ``None``. Calls that were settled while they waited are passed over."""
        queue = self.queue
        while queue:
            letter = queue.popleft()
            if self.after_take is not None and not self.after_take(letter):
                continue
            if not isinstance(letter, Pending):
                return letter
            letter.queued_in = None
            if not letter.done:
                return letter
        return None

    def take_next(self, kind: type[Message]) -> tuple[Message, Pending[Any] | None] | None:
        """Take the next message if it is of this type: the neighbour for a batch."""
        while self.queue:
            letter = self.queue[0]
            pending = letter if isinstance(letter, Pending) else None
            message: Message = letter if pending is None else pending.message  # type: ignore[assignment]
            gone = pending is not None and pending.done
            if not gone and type(message) is not kind:
                return None
            self.queue.popleft()
            taken = self.after_take is None or self.after_take(letter)
            if taken and not gone:
                if pending is not None:
                    pending.queued_in = None
                return message, pending
        return None

    async def arrival(self) -> None:
        """Wait until something lies in the mailbox, or :meth:`wake` is called. One server at a time."""
        if not self.queue and not self.urgent:
            self.waiter = waiter = self.backend.waiter()
            try:
                await waiter
            finally:
                self.waiter = None

    # -- the ends of incarnations and of the name

    def refusal(self) -> CallFailed:
        """Return the error for a call that the actor cannot take in its present phase."""
        if self.phase is Phase.RESTARTING:
            return Restarting(f"{self.name} is restarting")
        if self.phase is Phase.STOPPING:
            return Stopping(f"{self.name} is stopping")
        return NotRunning(f"{self.name} is not running")

    def fail_calls(self) -> None:
        """Fail every call that waits, and leave the casts where they are."""
        waiting = [letter for letter in self.queue if isinstance(letter, Pending)]
        if waiting:
            self._keep(letter for letter in self.queue if not isinstance(letter, Pending))
            for pending in waiting:
                pending.settle(None, self.refusal())

    def bury(self, why: LostWhy) -> None:
        """The name has ended for good: what is left becomes dead letters, and waiting senders go on to that, too."""
        self.phase = Phase.ENDED
        self.fail_calls()
        letters = list(self.queue)
        self.queue.clear()
        for letter in letters:
            self.dead_letter(letter, why)
        self.system = None
        while self.senders:
            turn = self.senders.popleft()
            self.dead_letter(turn.message, why)
            self.backend.wake(turn.waiter)

    def dead_letter(self, message: object, why: LostWhy) -> None:
        """Tell that nobody will handle a message."""
        self.on_dead_letter(self.name, type(message).__name__, why)

    def _has_room(self) -> bool:
        """Whether one more fits. Calls whose callers have gone are taken out first: they wait for nothing."""
        if self.abandoned and len(self.queue) >= self.bound:
            self.abandoned = False
            self._keep(letter for letter in self.queue if not (isinstance(letter, Pending) and letter.done))
        return len(self.queue) < self.bound

    def _keep(self, letters: Iterable[Message | Pending[Any]]) -> None:
        """Have only these of the letters wait, and whoever waits for the room that this makes."""
        kept = list(letters)
        self.queue.clear()
        self.queue.extend(kept)
        self._admit()

    def _made_room(self, message: Message) -> bool:
        if self.overflow == "drop_oldest":
            self._drop(self.queue.popleft())
            return True
        if self.overflow == "drop_newest":
            self.dead_letter(message, "mailbox full")
            return False
        raise MailboxFull(f"the mailbox of {self.name} is full ({self.bound} messages)")

    def _drop(self, letter: Message | Pending[Any]) -> None:
        if isinstance(letter, Pending):
            letter.settle(None, MailboxFull(f"dropped from the mailbox of {self.name} for a newer message"))
        else:
            self.dead_letter(letter, "mailbox full")

    def _admit_next(self, taken: Message | Pending[Any]) -> bool:
        self._admit()
        if not self.senders:
            self.after_take = None
        return True

    def _admit(self) -> None:
        """Take the messages of waiting senders into the room there is: here, so that nobody can step in between."""
        while self.senders and len(self.queue) < self.bound:
            turn = self.senders.popleft()
            self.queue.append(turn.message)
            self.backend.wake(turn.waiter)


class _Turn:
    """A sender that waits for room, with what it wants to say."""

    __slots__ = ("message", "waiter")

    def __init__(self, message: Message, waiter: Waiter) -> None:
        self.message = message
        self.waiter = waiter
