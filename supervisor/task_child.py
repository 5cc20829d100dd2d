"""An incarnation that is a task of this event loop: the loop of ``gen_server`` around one actor object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from supervisor.actor import Actor, Handler
from supervisor.boundary import Boundary
from supervisor.context import Context
from supervisor.errors import HandlerFailed, Refused
from supervisor.liveness import Liveness
from supervisor.monitor import Down, SystemMessage
from supervisor.reasons import (
    Killed,
    Normal,
    Reason,
    and_then,
    crash_of,
    is_clean,
    start_failure_of,
    text_of,
    unwrapped,
)
from supervisor.reply import Pending, Reply, as_call_failure

if TYPE_CHECKING:
    from protocol.messages.common import Message
    from supervisor.backend import Waiter
    from supervisor.incarnation import Keeper, Surroundings
    from supervisor.mailbox import Cell
    from supervisor.spec import ChildSpec

# After so many messages in a row the others on the loop get a turn: handlers that never wait must not starve them.
_TURN = 64


class TaskIncarnation:
    """Runs one actor in one task. See :class:`~supervisor.incarnation.Incarnation` for the rules that it keeps."""

    __slots__ = (
        "_actor",
        "_beats",
        "_closing",
        "_decided",
        "_emptied",
        "_failures",
        "_held",
        "_in_hand",
        "_killed",
        "_owned",
        "_scope",
        "_spawned",
        "_stop",
        "_task",
        "_timed",
        "acked",
        "cell",
        "keeper",
        "last_message",
        "number",
        "over",
        "pid",
        "spec",
        "surroundings",
    )

    def __init__(self, spec: ChildSpec, cell: Cell, number: int, keeper: Keeper, surroundings: Surroundings) -> None:
        self.spec = spec
        self.cell = cell
        self.number = number
        self.keeper = keeper
        self.surroundings = surroundings
        self.pid: int | None = None
        self.acked = False
        self.last_message: str | None = None
        self._actor: Actor | None = None
        self._task: object = None
        self._scope: anyio.CancelScope | None = None
        self._stop: Reason | None = None
        self._timed = False
        """A supervisor has asked for the stop, and counts its time."""
        self._decided: Reason | None = None
        self._killed = False
        self._closing = False
        self.over = False
        self._in_hand: list[Pending[Any]] = []
        self._held: set[Pending[Any]] = set()
        self._owned: dict[Hashable, Callable[[], None]] | None = None
        self._spawned: set[_Spawned] | None = None
        self._emptied: Waiter | None = None
        self._failures: tuple[BaseException, ...] = ()
        """What spawned tasks raised when the reason was known already."""
        self._beats: Liveness | None = None

    # -- what the supervisor asks for

    def start(self) -> None:
        self._scope = anyio.CancelScope()
        self._task = self.surroundings.backend.spawn(self._run, self.cell.name)

    def stop(self, reason: Reason, limit: float | None) -> None:
        self._timed = True
        self.ask_stop(reason)
        if not self.acked:
            self._cancel(reason)

    def kill(self, reason: Reason) -> None:
        if not self.over:
            self._killed = True
            self._cancel(reason)
            for spawned in self._spawned or ():
                spawned.scope.cancel()

    def fail(self, reason: Reason) -> None:
        if not self._closing:
            self._cancel(reason)

    def where(self) -> str:
        backend = self.surroundings.backend
        stacks = [backend.stack_of(self._task)]
        stacks.extend(f"in {spawned.name}:\n{backend.stack_of(spawned.task)}" for spawned in self._spawned or ())
        return "\n".join(stacks)

    def summary(self) -> Mapping[str, object]:
        if self._actor is None:
            return {}
        with Boundary(None) as edge:
            return dict(self._actor.summary())
        return {"error": "" if edge.error is None else text_of(edge.error)}

    # -- what the actor asks for, through its context

    def ask_stop(self, reason: Reason) -> None:
        if self._stop is None:
            self._stop = reason
            self.cell.wake()

    def spawn(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], name: str) -> None:
        if self._spawned is None:
            self._spawned = set()
        spawned = _Spawned(self, function, args, name)
        self._spawned.add(spawned)
        spawned.task = self.surroundings.backend.spawn(spawned.run, f"{self.cell.name}/{name}")

    def own(self, key: Hashable, close: Callable[[], None]) -> None:
        if self._owned is None:
            self._owned = {}
        self._owned[key] = close

    def disown(self, key: Hashable) -> None:
        if self._owned is not None:
            self._owned.pop(key, None)

    def beat(self, phase: str, limit: float | None) -> None:
        if self._beats is not None:
            self._beats.beat(phase, limit)

    def hear(self, down: Down) -> None:
        if not self._closing:
            self.cell.put_system(down)

    def tick(self, message: Message) -> None:
        if not self._closing:
            self.cell.put_tick(message)

    def spawned_ended(self, spawned: _Spawned, error: BaseException | None) -> None:
        """A spawned task is over; with an error, so is the actor."""
        assert self._spawned is not None
        self._spawned.discard(spawned)
        if error is not None and self._closing:
            self._failures += (error,)
        elif error is not None:
            self.fail(crash_of(error))
        if self._emptied is not None:
            self._emptied.wake()

    # -- the life

    async def _run(self) -> None:
        reason: Reason = Killed()
        try:
            reason = await self._live()
            self._end_service(reason)
            if self.acked and not self._killed:
                reason = await self._close(reason)
            await self._end_spawned()
            if not self._killed:
                for error in self._failures:
                    reason = and_then(reason, error)
        finally:
            # Also when the event loop is being taken down around us: whoever waits for the end must hear of it.
            self._end_service(reason)
            self.over = True
            for close in list((self._owned or {}).values()):
                close()
            self._settle_held()
            self._actor = None
            self.cell.serving_task = None
            self.keeper.ended(self, reason)

    async def _live(self) -> Reason:
        assert self._scope is not None
        # Asked, not taken from the start: with an eager task factory this runs before the start has returned.
        self._task = self.cell.serving_task = self.surroundings.backend.current_task()
        with self._scope, Boundary(self._scope) as edge:
            self._actor = actor = self.spec.start()  # type: ignore[operator]  # checked by the specification
            if not isinstance(actor, Actor):
                raise TypeError(f"the start of {self.spec.id!r} returned {actor!r}, which is no Actor")
            actor.context = Context(self)
            self.cell.configure(actor.mailbox)
            await actor.on_start()
            self._ack()
            await self._serve(actor)
        if self._decided is not None:
            return self._decided
        if edge.error is None:
            return self._stop or Normal()
        if not self.acked:
            return start_failure_of(edge.error)
        crash = crash_of(edge.error)
        for pending in self._in_hand:  # as the error of this handler: that of a call it made is not one of this call
            pending.settle(None, HandlerFailed(crash.error_type, crash.text, crash.traceback))
        return crash

    def _ack(self) -> None:
        self.acked = True
        if self._decided is None:
            if self.spec.liveness is not None:
                self._beats = Liveness(self.surroundings.clock, self.spec.liveness, self.kill)
                self._beats.start()
            self.keeper.acked(self)

    async def _serve(self, actor: Actor) -> None:
        cell = self.cell
        handlers = actor.__handlers__
        turn = 0
        while self._stop is None and self._decided is None:
            if cell.system:
                await self._handle_system(actor, cell.system.popleft())
                continue
            letter = cell.take()
            if letter is None:
                await cell.arrival()
                continue
            pending = letter if isinstance(letter, Pending) else None
            message: Message = letter if pending is None else pending.message  # type: ignore[assignment]
            handler = handlers.get(type(message))
            if handler is None:
                self._not_handled(message, pending)
            elif handler.mode == "plain":
                await self._handle_plain(actor, handler, message, pending)
            else:
                await self._handle_with_replies(actor, handler, message, pending)
            turn += 1
            if turn == _TURN:
                turn = 0
                await self.surroundings.backend.checkpoint()

    async def _handle_plain(
        self, actor: Actor, handler: Handler, message: Message, pending: Pending[Any] | None
    ) -> None:
        self.last_message = type(message).__name__
        if pending is not None:
            self._in_hand.append(pending)
        try:
            value = await handler.run(actor, message)
        except (Refused, ExceptionGroup) as error:
            self._refuse(message, error)
        else:
            if pending is not None:
                pending.settle(value)
        self._in_hand.clear()

    async def _handle_with_replies(
        self, actor: Actor, handler: Handler, message: Message, pending: Pending[Any] | None
    ) -> None:
        self.last_message = type(message).__name__
        batch: list[tuple[Message, Pending[Any] | None]] = [(message, pending)]
        while len(batch) < handler.limit:
            neighbour = self.cell.take_next(type(message))
            if neighbour is None:
                break
            batch.append(neighbour)
        for _, waiting in batch:
            if waiting is not None:
                waiting.held_by(self._held)
                self._in_hand.append(waiting)
        tokens = [(one, Reply(waiting)) for one, waiting in batch]
        try:
            if handler.mode == "batch":
                await handler.run(actor, tokens)
            else:
                await handler.run(actor, *tokens[0])
        except (Refused, ExceptionGroup) as error:
            self._refuse(message, error)
        self._in_hand.clear()

    async def _handle_system(self, actor: Actor, message: SystemMessage) -> None:
        if isinstance(message, Down):
            handler = actor.__handlers__.get(Down)
            if handler is not None:
                self.last_message = "Down"
                await handler.run(actor, message)
        else:
            raise message.error

    def _not_handled(self, message: Message, pending: Pending[Any] | None) -> None:
        # A message of a type that the actor does not know comes from outside; it must not be able to crash it.
        text = f"{self.cell.name} does not handle {type(message).__name__}"
        if pending is not None:
            pending.settle(None, as_call_failure(Refused(text, code="not_handled")))
        else:
            self.cell.dead_letter(message, "not handled")

    def _refuse(self, message: Message, error: Exception) -> None:
        """Answer with a refusal, also one that comes out of a task group alone. Any other error is raised again."""
        refusal = unwrapped(error)
        if not isinstance(refusal, Refused):
            raise error
        if not self._in_hand:
            self.cell.dead_letter(message, "refused")
        for pending in self._in_hand:
            pending.settle(None, as_call_failure(refusal))

    # -- the end

    def _end_service(self, reason: Reason) -> None:
        if not self._closing:
            self._closing = True
            self.cell.drop_ticks()
            if self._beats is not None:
                self._beats.stop()
            self.keeper.ending(self, reason)
            self._settle_held()

    async def _close(self, reason: Reason) -> Reason:
        """Run ``on_stop``; its own failure makes a clean end a crash and never hides an earlier one."""
        assert self._actor is not None
        self._scope = scope = anyio.CancelScope()
        # After a crash, or an end that the actor chose, no supervisor counts its time.
        limit = None if self._timed else self.spec.shutdown
        timer = self.surroundings.clock.call_later(limit, scope.cancel) if isinstance(limit, int | float) else None
        with scope, Boundary(scope) as edge:
            await self._actor.on_stop(reason)
        if timer is not None:
            timer.cancel()
        if edge.error is not None:
            return and_then(reason, edge.error)
        if is_clean(reason) and scope.cancel_called:
            return self._decided or Killed()
        return reason

    async def _end_spawned(self) -> None:
        """Cancel what was spawned until nothing is left: the clean-up of one task may have spawned another."""
        while self._spawned:
            for spawned in self._spawned:
                spawned.scope.cancel()
            self._emptied = self.surroundings.backend.waiter()
            with anyio.CancelScope(shield=True):
                await self._emptied

    def _settle_held(self) -> None:
        """Fail the calls that this incarnation took and will not answer."""
        for pending in [*self._in_hand, *self._held]:
            pending.settle(None, self.cell.refusal())
        self._in_hand.clear()

    def _cancel(self, reason: Reason) -> None:
        if self._decided is None:
            self._decided = reason
        self._end_service(self._decided)  # now: it may be long before the cancellation gets through, if it ever does
        if self._scope is not None:
            self._scope.cancel()


class _Spawned:
    """A task that an actor runs beside its mailbox."""

    __slots__ = ("_args", "_function", "_life", "name", "scope", "task")

    def __init__(
        self, life: TaskIncarnation, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], name: str
    ) -> None:
        self._life = life
        self._function = function
        self._args = args
        self.name = name
        self.scope = anyio.CancelScope()
        self.task: object = None

    async def run(self) -> None:
        with self.scope, Boundary(self.scope) as edge:
            await self._function(*self._args)
        self._life.spawned_ended(self, edge.error)
