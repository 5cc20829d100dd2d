"""An incarnation that is a task of this event loop: the loop of ``gen_server`` around one actor object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from protocol.boundary import Boundary
from supervisor.actor import Actor
from supervisor.context import Context
from supervisor.liveness import Liveness
from supervisor.monitor import Down
from supervisor.reasons import (
    Killed,
    Normal,
    Reason,
    and_then,
    crash_of,
    is_clean,
    start_failure_of,
    text_of,
)
from supervisor.serving import Service

if TYPE_CHECKING:
    from protocol.backend import Waiter
    from protocol.messages.common import Message
    from supervisor.incarnation import Keeper, Surroundings
    from supervisor.mailbox import Cell
    from supervisor.spec import ChildSpec


class TaskIncarnation:
    """Runs one actor in one task. See :class:`~supervisor.incarnation.Incarnation` for the rules that it keeps."""

    __slots__ = (
        "_actor",
        "_beats",
        "_closing",
        "_decided",
        "_emptied",
        "_failures",
        "_killed",
        "_owned",
        "_scope",
        "_service",
        "_spawned",
        "_stop",
        "_task",
        "_timed",
        "acked",
        "cell",
        "keeper",
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
        self._service: Service | None = None
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
        self._owned: dict[Hashable, Callable[[], None]] | None = None
        self._spawned: set[_Spawned] | None = None
        self._emptied: Waiter | None = None
        self._failures: tuple[BaseException, ...] = ()
        """What spawned tasks raised when the reason was known already."""
        self._beats: Liveness | None = None

    @property
    def suspended(self) -> bool:
        return self._service is not None and self._service.suspended

    @property
    def last_message(self) -> str | None:
        kind = None if self._service is None else self._service.last_kind
        return None if kind is None else kind.__name__

    # -- what the supervisor asks for

    def start(self) -> None:
        self._scope = anyio.CancelScope()
        self._task = self.surroundings.backend.spawn(self._run, self.cell.name)

    def stop(self, reason: Reason) -> None:
        self._timed = True
        self.ask_stop(reason)
        if not self.acked:
            self._cancel(reason)

    def kill(self, reason: Reason) -> None:
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
            if self._service is not None:
                self._service.leave()

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
            self.surroundings.backend.wake(self._emptied)

    # -- the life

    async def _run(self) -> None:
        reason: Reason = Killed()
        try:
            if self._decided is None:  # it may have been given up before it began
                assert self._scope is not None
                # The very coroutine of the task serves: for an actor at rest, each frame below it is kept in memory.
                with self._scope, Boundary(self._scope) as edge:
                    service = self._service = self._made()
                    await self._actor.on_start()  # type: ignore[union-attr]  # it was made in the line above
                    self._ack()
                    await service.run()
                reason = self._reason_after(edge.error)
            else:
                reason = self._decided
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
            if self._service is not None:
                self._service.fail_rest()
            self._actor = None
            self.cell.serving_task = None
            self.keeper.ended(self, reason)

    def _made(self) -> Service:
        """Make the actor, and what serves it."""
        # Asked, not taken from the start: with an eager task factory this runs before the start has returned.
        self._task = self.cell.serving_task = self.surroundings.backend.current_task()
        self._actor = actor = self.spec.start()  # type: ignore[operator]  # checked by the specification
        if not isinstance(actor, Actor):
            raise TypeError(f"the start of {self.spec.id!r} returned {actor!r}, which is no Actor")
        actor.context = Context(self)
        self.cell.configure(actor.mailbox)
        return Service(actor, self.cell, self.surroundings.backend)

    def _reason_after(self, error: BaseException | None) -> Reason:
        """Say why the serving has ended."""
        if self._decided is not None:
            return self._decided
        if error is None:
            return self._stop or Normal()
        if not self.acked:
            return start_failure_of(error)
        crash = crash_of(error)
        assert self._service is not None
        self._service.fail_in_hand(crash)
        return crash

    def _ack(self) -> None:
        self.acked = True
        if self._decided is None:
            if self.spec.liveness is not None:
                self._beats = Liveness(self.surroundings.clock, self.spec.liveness, self.kill)
                self._beats.start()
            self.keeper.acked(self)

    # -- the end

    def _end_service(self, reason: Reason) -> None:
        if not self._closing:
            self._closing = True
            self.cell.drop_ticks()
            if self._beats is not None:
                self._beats.stop()
            self.keeper.ending(self, reason)
            if self._service is not None:
                self._service.fail_rest()

    async def _close(self, reason: Reason) -> Reason:
        """Run ``on_stop``; its own failure makes a clean end a crash and never hides an earlier one."""
        assert self._actor is not None
        if type(self._actor).on_stop is Actor.on_stop:  # nothing to do, and so nothing to limit
            return reason
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

    def _cancel(self, reason: Reason) -> None:
        if self._decided is None:
            self._decided = reason
            if self._service is not None:
                self._service.leave()
        self._end_service(self._decided)  # now: it may be long before the cancellation gets through, if it ever does
        assert self._scope is not None  # since it was started
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
