"""The supervisor: starts children in order, ends them in reverse, and decides what follows an exit.

Semantics: OTP's ``supervisor.erl``, whose functions are named where their rules are kept. Steps are taken one after
another by one task; requests are served between any two, also in the middle of a failing restart loop.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import anyio

from protocol.boundary import Boundary
from supervisor.intensity import Intensity
from supervisor.reasons import Killed, Reason, Shutdown, StartFailed, crash_of, is_clean
from supervisor.record import ChildRecord, Status, needs_restart
from supervisor.reports import describe, report_lifecycle
from supervisor.spec import ChildSpec, CoolDown, OnGiveUp, SupervisorSpec, names_in
from supervisor.steps import Steps

if TYPE_CHECKING:
    from supervisor.incarnation import Keeper
    from supervisor.requests import Request
    from supervisor.runtime import TreeRuntime


class Supervisor(Steps):
    """One incarnation of one supervisor; an :class:`~supervisor.incarnation.Incarnation` in the eyes of its parent."""

    def __init__(self, spec: SupervisorSpec, number: int, keeper: Keeper, runtime: TreeRuntime) -> None:
        group = runtime.cell(spec.id) if spec.strategy == "one_for_all" else None
        super().__init__(runtime, lambda child: _supervisor_for(child, runtime), group)
        self.spec = spec
        self.number = number
        self.keeper = keeper
        self.pid: int | None = None
        self.last_message: str | None = None
        self.suspended = False  # it handles no messages in the first place
        self.children: dict[str, ChildRecord] = {}
        """In start order."""
        self.pending: dict[str, ChildRecord] = {}
        """Children whose restart is due at some time; each stands for the group that is started with it."""
        self.requests: deque[Request] = deque()
        self.gave_up = False
        self._intensity = Intensity(spec.intensity, spec.period)
        self._own = {child.id: child for child in spec.children}
        self._ending = False
        self._returns = False
        """Whether another incarnation of this supervisor follows, as far as is known; set when the end begins."""
        self._over = False
        self._task: object = None

    # -- in the eyes of its parent

    def start(self) -> None:
        self.runtime.supervisors[self.spec.id] = self
        for spec in self.spec.children:
            self.add(spec)
        self._task = self.runtime.backend.spawn(self._run, self.spec.id)

    def stop(self, reason: Reason) -> None:
        if self.stopping is None:
            self.stopping = reason
        self.wake()

    def kill(self, reason: Reason) -> None:
        self.hurry = True
        self.stop(reason)

    def fail(self, reason: Reason) -> None:
        self.stop(reason)

    def where(self) -> str:
        return self.runtime.backend.stack_of(self._task)

    def summary(self) -> Mapping[str, object]:
        return {}

    # -- told by its children

    def child_exited(self, child: ChildRecord) -> bool:
        """Note that nothing of a child's incarnation is left; False if this supervisor knows no such child."""
        if self._over or self.children.get(child.id) is not child:
            return False
        self.exits.append(child)
        self.wake()
        return True

    # -- its life

    async def _run(self) -> None:
        reason: Reason = Killed()
        try:
            with Boundary(None) as edge:
                reason = await self._supervise()
            if edge.error is not None:
                reason = crash_of(edge.error)
            self.stopping = reason
            self._begin_end(reason)
            with anyio.CancelScope(shield=True):
                while self.children:  # a stranger may cancel this task once more, and nobody may be left behind
                    with contextlib.suppress(anyio.get_cancelled_exc_class()):
                        await self._stop_children(reason)
        finally:
            self._begin_end(reason)
            self._over = True
            del self.runtime.supervisors[self.spec.id]
            self.keeper.ended(self, reason)

    def _begin_end(self, reason: Reason) -> None:
        if not self._ending:
            self._ending = True
            self._returns = self.keeper.ending(self, reason)
        while self.requests:
            self.requests.popleft().refuse("is stopping")

    async def _supervise(self) -> Reason:
        failed = await self._boot()
        if failed is not None:
            return failed
        if self.stopping is None:
            self.keeper.acked(self)
        while self.stopping is None:
            if self.exits:
                await self._handle_exit(self.exits.popleft())
            elif self.requests:
                await self.requests.popleft().serve()
            else:
                due = min(self.pending.values(), key=lambda child: child.due, default=None)
                if due is not None and due.due <= self.runtime.clock.monotonic():
                    await self._restart_now(due)
                else:
                    await self.pause(None if due is None else due.due)
        return self.stopping

    async def _boot(self) -> StartFailed | None:
        """Start all children in order (``init_children/2``). A failure is not retried and ends the boot, unless the
        child cools down: then the supervisor counts as started."""
        for child in list(self.children.values()):
            cools = isinstance(self.policy(child), CoolDown)
            if await self.start_one(child, retried=cools):
                continue
            if self.stopping is not None:
                return None
            if child.aborted:
                child.settle_stopped("not running")
            elif cools:
                await self._give_up(child)
                if self.spec.strategy != "one_for_one":
                    return None
            else:
                return _boot_failure(child)
        return None

    async def _stop_children(self, reason: Reason) -> None:
        """End all children, one at a time, in reverse start order (``terminate_children/2``); dynamic ones together
        (``terminate_dynamic_children/1``).

        To those who call and cast, the end of a child that will be there again after our own restart is a restart.
        """
        ask = reason if isinstance(reason, Shutdown) else Shutdown()
        self.pending.clear()
        children = list(reversed(self.children.values()))
        if self.spec.dynamic:
            await self.end_together(children, ask, "final", self.let_go)
            return
        for child in children:
            returns = self._returns and child.id in self._own
            await self.end_one(child, ask, "again" if returns else "final")
            self.let_go(child, returns=returns)

    # -- children

    def add(self, spec: ChildSpec | SupervisorSpec) -> ChildRecord:
        """Remember a new child, last in order."""
        is_supervisor, specified = isinstance(spec, SupervisorSpec), self._own.get(spec.id) is spec
        above = self.runtime.children[self.spec.id].series
        series = self.runtime.tally.below(above, spec.id, is_supervisor=is_supervisor, specified=specified)
        child = ChildRecord(spec, self.spec.id, self.runtime, series)
        self.children[spec.id] = self.runtime.children[spec.id] = child
        return child

    def let_go(self, child: ChildRecord, *, returns: bool = False) -> None:
        """Have this child no more. Its name stays ours if we would start it again after a restart, or until it ends."""
        self.pending.pop(child.id, None)
        self.children.pop(child.id, None)
        if not child.alive:
            if returns:
                child.settle_waiting()
            else:
                child.settle_stopped("not running")
            self.runtime.drop(child, for_good=child.id not in self._own)

    def free_names(self, id: str) -> Collection[str]:
        """The names that are ours although no child of this id exists: those of one that was deleted."""
        return () if id in self.children or id not in self._own else set(names_in(self._own[id]))

    def policy(self, child: ChildRecord) -> OnGiveUp:
        """What happens when this child makes the supervisor give up."""
        own = child.spec.on_give_up if isinstance(child.spec, ChildSpec) else None
        return self.spec.on_give_up if own is None else own

    def siblings(self, child: ChildRecord) -> list[ChildRecord]:
        """Those that fall with a child, in start order (``split_child/2``); not the child itself."""
        if self.spec.strategy == "one_for_one":
            return []
        everyone = list(self.children.values())
        if self.spec.strategy == "rest_for_one":
            return everyone[everyone.index(child) + 1 :]
        return [other for other in everyone if other is not child]

    # -- what follows an exit

    async def _handle_exit(self, child: ChildRecord) -> None:
        """An incarnation ended by itself (``do_restart/3``). One that a step has dealt with is passed over."""
        for waiting in self.pending.values():
            if waiting.due == float("inf"):  # for the end of a sibling, and this may be it
                waiting.due = self.runtime.clock.monotonic()
        reason = child.exit
        if reason is None or self.children.get(child.id) is not child:
            return
        child.exit = None
        if child.fate != "own":
            self._unstuck(child)
        elif needs_restart(child.spec, reason):
            await self._restart(child, reason)
        else:
            child.settle_stopped("not running")
            if child.spec.restart == "temporary":
                self.let_go(child)
            self._consider_shutdown(child, reason)

    def _unstuck(self, child: ChildRecord) -> None:
        """A child that had been given up as stuck has ended after all."""
        if not child.resume:
            child.settle_stopped("not running")
            if child.spec.restart == "temporary":
                self.let_go(child)
        child.resume = False

    def _consider_shutdown(self, child: ChildRecord, reason: Reason) -> None:
        """``do_auto_shutdown/2``: only ends by themselves count, and a child to be restarted is not over."""
        if not child.spec.significant or (child.spec.restart == "transient" and not is_clean(reason)):
            return
        mode = self.spec.auto_shutdown
        left = [other for other in self.children.values() if other.spec.significant and not self._is_over(other)]
        if mode == "any_significant" or (mode == "all_significant" and not left):
            self.stop(Shutdown(f"significant child {child.id} ended"))

    def _is_over(self, child: ChildRecord) -> bool:
        return child.status in (Status.STOPPED, Status.NEW) and not child.alive

    async def _restart(self, child: ChildRecord, reason: Reason) -> None:
        """Count a restart that is needed; take the group down; leave the start to the loop, after the backoff."""
        now = self.runtime.clock.monotonic()
        if not self._intensity.add(now):
            await self._give_up(child)
            return
        delay = 0.0
        backoff = self.spec.backoff
        if backoff is not None:
            if child.ran_for >= backoff.reset_after:
                child.attempt = 0
            delay = backoff.delay(child.attempt, self.runtime.chance)
            child.attempt += 1
        child.ran_for = 0.0
        self._schedule(child, Status.RESTARTING, now + delay)
        report_lifecycle(child, "restarting", reason=reason, delay=delay)
        await self._stop_siblings(child)

    async def _give_up(self, child: ChildRecord) -> None:
        policy = self.policy(child)
        reason = child.last_reason
        if isinstance(policy, CoolDown):
            self._intensity.clear()
            child.attempt = 0  # with delays that had grown already, the limit could not be reached again
            self._schedule(child, Status.COOLING, self.runtime.clock.monotonic() + policy.seconds)
            report_lifecycle(child, "cooling_down", reason=reason, delay=policy.seconds)
            await self._stop_siblings(child)
        else:
            report_lifecycle(child, "gave_up", reason=reason)
            self.gave_up = True
            why = "" if reason is None else f" ({describe(reason)})"
            self.stop(Shutdown(f"reached maximum restart intensity: {child.id}{why}"))

    def _schedule(self, child: ChildRecord, status: Status, due: float) -> None:
        child.status = status
        child.due = due
        self.pending[child.id] = child

    async def _stop_siblings(self, child: ChildRecord, *, running: bool = False) -> None:
        """Take down the others of the group, or those that run, in reverse order; temporary ones for good
        (``restart/3``)."""
        for sibling in reversed(self.siblings(child)):
            if running and sibling.status is not Status.RUNNING:
                continue
            self.pending.pop(sibling.id, None)
            last = sibling.spec.restart == "temporary" and sibling.status is not Status.NEW
            ended = await self.end_one(sibling, Shutdown(f"{child.id} is restarted"), "final" if last else "again")
            if last:
                if ended:
                    self.let_go(sibling)
            else:
                sibling.status = Status.WAITING

    async def _restart_now(self, child: ChildRecord) -> None:
        """Start a child and its group, in start order (``restart_multiple_children/3``), up to the next one that has a
        restart of its own pending: those behind it are started with it.

        Those that were started by hand in the meantime go down first, and come up in their turn. A failing start is
        counted like a crash of that child. Under rest_for_one the retry goes on from there; under one_for_all those
        just started go down again.
        """
        if not self._have_ended(child):
            child.due = float("inf")  # no new incarnation beside the old
            return
        siblings = self.siblings(child)
        if siblings:
            await self._stop_siblings(child, running=True)
            if not self._have_ended(child):
                child.due = float("inf")
                return
            siblings = self.siblings(child)
        del self.pending[child.id]
        for one in list(self.children.values()) if siblings else (child,):
            if self.halted():
                return
            if one in siblings and one.id in self.pending:
                return
            if one is not child and (one not in siblings or one.status is not Status.WAITING):
                continue
            if await self.start_one(one, retried=True):
                continue
            if self.halted():
                return
            if one.aborted:
                one.settle_stopped("not running")
            else:
                await self._restart(one, one.last_reason or Killed())
                return

    def _have_ended(self, child: ChildRecord) -> bool:
        """Whether nothing is left of all of its group that do not run."""
        return not any(one.alive for one in (child, *self.siblings(child)) if one.status is not Status.RUNNING)

    async def renew(self, child: ChildRecord) -> None:
        """End a child and start it again with its group, as a crash would have it, but uncounted and without delay."""
        await self.end_one(child, Shutdown("restarted on request"), "again")
        self._schedule(child, Status.RESTARTING, self.runtime.clock.monotonic())
        report_lifecycle(child, "restarting", reason=child.last_reason, delay=0.0)
        await self._stop_siblings(child)
        if not self.halted():
            await self._restart_now(child)

    def pass_on_restart(self, child: ChildRecord) -> None:
        """The pending restart of a child was cancelled: the siblings that wait with it are started without it, unless
        they wait for another one, too.

        OTP leaves them down (``hanging_restart_loop_rest_for_one``), where nobody would ever start them.
        """
        if self.pending.pop(child.id, None) is not None:
            if any(child in self.siblings(other) for other in self.pending.values()):
                return
            for sibling in self.siblings(child):
                if sibling.id in self.pending:
                    return
                if sibling.status is Status.WAITING:
                    self._schedule(sibling, Status.WAITING, self.runtime.clock.monotonic())
                    return


def _supervisor_for(child: ChildRecord, runtime: TreeRuntime) -> Supervisor:
    assert isinstance(child.spec, SupervisorSpec)
    return Supervisor(child.spec, child.cell.incarnation, child, runtime)


def _boot_failure(child: ChildRecord) -> StartFailed:
    """OTP's ``{failed_to_start_child, Id, Reason}``, with the live error for whoever opened the tree."""
    reason = child.last_reason
    if isinstance(reason, StartFailed):
        return StartFailed(reason.error_type, f"{child.id}: {reason.text}", reason.traceback, reason.error)
    return StartFailed("StartFailed", f"{child.id}: {reason}")
