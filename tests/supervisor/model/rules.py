"""The rules of a supervision tree, as a specification that can be run: no tasks, no clock, no I/O.

What OTP says is named by its function in ``supervisor.erl``; what this library adds is marked "ours". A supervisor is a
generator that yields what it waits for; ``world.py`` lets everybody go on until all of them wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from supervisor import ChildSpec, CoolDown, SupervisorSpec
from supervisor.spec import names_in
from tests.supervisor.model.child import AnySpec, Child, is_over, limit_of

if TYPE_CHECKING:
    from tests.supervisor.model.world import Model

CLEAN = ("normal", "shutdown")


class Wait(NamedTuple):
    ready: Callable[[], object]
    until: float = inf


Steps = Generator[Wait, bool, None]
Attempt = Generator[Wait, bool, bool]


class Refused(Exception):
    """The answer to a request, by the name of the exception."""


@dataclass(eq=False)
class Request:
    work: Callable[[Supervisor], Steps]
    answer: str = "waits"


class Supervisor:
    """One incarnation of a supervisor."""

    def __init__(self, model: Model, me: Child) -> None:
        assert isinstance(me.spec, SupervisorSpec)
        self.model, self.me, self.spec = model, me, me.spec
        self.own = {spec.id: spec for spec in self.spec.children}
        self.children = {spec.id: Child(spec, self) for spec in self.spec.children}
        self.exits: list[Child] = []
        self.requests: list[Request] = []
        self.pending: list[Child] = []
        """Those whose restart is due at some time; each stands for the group that is started with it."""
        self.window: list[float] = []
        self.stopping: str | None = None
        self.gave_up = False
        self.busy: Child | None = None

    def begin(self) -> None:
        self.model.lives.append((self, self.life(), Wait(lambda: True, -1.0)))

    def ask(self, reason: str) -> None:
        self.stopping = self.stopping or reason

    def kill(self) -> None:
        raise AssertionError("a supervisor has all the time it needs")

    def life(self) -> Steps:
        if (yield from self.boot()):
            if self.stopping is None:
                self.me.ack(self.model)
            while self.stopping is None:
                yield from self.step()
        else:
            self.stopping = "start failed"
        assert self.stopping is not None
        self.me.ending(self.model)
        for request in self.requests:
            request.answer = "SupervisorStopping"
        if self.spec.dynamic:
            yield from self.end_together()
        for child in reversed(list(self.children.values())):  # terminate_children/2
            yield from self.end(child)
            self.forget(child)
        self.me.over(self.model, self.stopping)

    def boot(self) -> Attempt:
        """init_children/2: in order; the first failure ends it. Ours: unless the child cools down."""
        for child in list(self.children.values()):
            cools = isinstance(self.policy(child), CoolDown)
            if (yield from self.start(child, retried=cools)):
                continue
            if self.stopping is not None:
                return True
            if child.aborted:
                child.status = "stopped"
            elif not cools:
                return False
            else:
                yield from self.give_up(child)
                if self.spec.strategy != "one_for_one":
                    return True
        return True

    def step(self) -> Steps:
        """One thing at a time: exits, then requests, then restarts that are due."""
        for child in self.children.values():  # ours: nobody waits for nothing
            if child.status == "waiting" and not any(child is one or child in self.group(one) for one in self.pending):
                self.schedule(child, "waiting", self.model.now)
        first = min(self.pending, key=lambda child: child.due, default=None)
        due = inf if first is None else first.due
        yield Wait(lambda: self.exits or self.requests or self.stopping or due <= self.model.now, due)
        if self.stopping is not None:
            return
        if self.exits:
            yield from self.exited(self.exits.pop(0))
        elif self.requests:
            request = self.requests.pop(0)
            try:
                yield from request.work(self)
                request.answer = "ok"
            except Refused as refused:
                request.answer = str(refused)
        elif first is not None:
            yield from self.restart_group(first)

    # -- the two steps that all is made of

    def start(self, child: Child, *, retried: bool) -> Attempt:
        child.status, child.left_alone, child.acked, child.aborted = "starting", True, False, False
        child.exit, child.retried, self.busy = None, retried, child
        self.model.numbers[child.spec.id] = self.model.numbers.get(child.spec.id, 0) + 1
        child.life = self.model.new_life(child)
        limit = child.spec.start_timeout if isinstance(child.spec, ChildSpec) else inf
        child.life.begin()
        until = self.model.now + limit
        yield Wait(lambda: child.acked or not child.life or self.stopping or child.aborted, until)
        self.busy = None
        if not child.acked and child.life and self.stopping is None:
            yield from self.end(child, "shutdown" if child.aborted else "start failed")
        elif not child.life and not child.acked:
            child.exit = None
        return child.acked

    def end(self, child: Child, reason: str = "shutdown") -> Steps:
        """shutdown/1: ask, wait for as long as it may take, kill."""
        if child.life is not None:
            child.left_alone, child.status, self.busy = False, "stopping", child
            child.life.ask(reason)
            if not (yield Wait(lambda: child.life is None, self.model.now + limit_of(child))):
                self.model.tell(child, "overdue")
                child.life.kill()
            self.busy = None
        child.exit = None

    def end_together(self) -> Steps:
        """terminate_dynamic_children/1: ask all at once; each has its own limit."""
        until: dict[Child, float] = {}
        for child in reversed(list(self.children.values())):
            until[child] = self.model.now + limit_of(child)
            if child.life is not None:
                child.left_alone, child.status = False, "stopping"
                child.life.ask("shutdown")
        while until:
            for child in [one for one in until if one.life is None]:
                del until[child]
                self.forget(child)
            due = min(until.values(), default=-inf)
            if until and not (yield Wait(lambda: any(one.life is None for one in until), due)):
                for child in [one for one, by in until.items() if by <= self.model.now]:
                    self.model.tell(child, "overdue")
                    child.life.kill()

    # -- who is concerned

    def policy(self, child: Child) -> object:
        own = child.spec.on_give_up if isinstance(child.spec, ChildSpec) else None
        return self.spec.on_give_up if own is None else own

    def group(self, child: Child) -> list[Child]:
        """Those that fall with a child (split_child/2), in start order."""
        everyone = list(self.children.values())
        match self.spec.strategy:
            case "rest_for_one":
                return everyone[everyone.index(child) + 1 :]
            case "one_for_all":
                return [one for one in everyone if one is not child]
        return []

    def forget(self, child: Child) -> None:
        if child in self.pending:
            self.pending.remove(child)
        del self.children[child.spec.id]
        if child.spec.id not in self.own:
            self.model.names -= set(names_in(child.spec))

    # -- what follows an exit

    def exited(self, child: Child) -> Steps:
        """do_restart/3 and do_auto_shutdown/2."""
        for one in self.pending:
            if one.due == inf:
                one.due = self.model.now
        reason, child.exit = child.exit, None
        if reason is None or self.children.get(child.spec.id) is not child:
            return
        kind = child.spec.restart
        if kind == "permanent" or (kind == "transient" and reason not in CLEAN):
            yield from self.failed(child)
            return
        child.status = "stopped"
        if kind == "temporary":
            self.forget(child)
        if child.spec.significant:
            left = [one for one in self.children.values() if one.spec.significant and not is_over(one)]
            mode = self.spec.auto_shutdown
            if mode == "any_significant" or (mode == "all_significant" and not left):
                self.ask("shutdown")

    def failed(self, child: Child) -> Steps:
        """add_restart/3: each attempt counts, one exactly ``period`` old still does. Ours: the backoff."""
        now, backoff = self.model.now, self.spec.backoff
        self.window = [*(then for then in self.window if then >= now - self.spec.period), now]
        if len(self.window) > self.spec.intensity:
            yield from self.give_up(child)
            return
        delay = 0.0
        if backoff is not None:
            if child.ran_for >= backoff.reset_after:
                child.attempt = 0
            delay = min(backoff.most, backoff.first * backoff.factor**child.attempt)
            child.attempt += 1
        child.ran_for = 0.0
        self.schedule(child, "restarting", now + delay)
        self.model.tell(child, "restarting", delay)
        yield from self.fell_group(child)

    def give_up(self, child: Child) -> Steps:
        policy = self.policy(child)
        if isinstance(policy, CoolDown):  # ours
            self.window, child.attempt = [], 0
            self.schedule(child, "cooling down", self.model.now + policy.seconds)
            self.model.tell(child, "cooling_down", policy.seconds)
            yield from self.fell_group(child)
        else:
            self.model.tell(child, "gave_up")
            self.gave_up = True
            self.ask("shutdown")

    def schedule(self, child: Child, status: str, due: float) -> None:
        child.status, child.due = status, due
        if child not in self.pending:
            self.pending.append(child)

    def fell_group(self, child: Child, *, running: bool = False) -> Steps:
        """restart/3: the others of the group go down, in reverse; temporary ones are not started again."""
        for one in reversed(self.group(child)):
            if running and one.status != "running":
                continue
            if one in self.pending:
                self.pending.remove(one)
            last = one.spec.restart == "temporary" and one.status != "not started"
            yield from self.end(one)
            if last:
                self.forget(one)
            else:
                one.status = "waiting"

    def restart_group(self, child: Child) -> Steps:
        """restart/3, restart_multiple_children/3: those that run go down; then all start, in order.

        Ours: up to the next that has a restart of its own pending.
        """
        if any(one.life and one.status != "running" for one in (child, *self.group(child))):
            child.due = inf  # no new incarnation beside one that is ending: the next exit decides
            return
        yield from self.fell_group(child, running=True)
        group = self.group(child)
        self.pending.remove(child)
        for one in list(self.children.values()):
            if one in group and one in self.pending:
                return
            if one is not child and (one not in group or one.status != "waiting"):
                continue
            if (yield from self.start(one, retried=True)):
                if self.stopping is not None:
                    return
                continue
            if self.stopping is not None:
                return
            if not one.aborted:
                yield from self.failed(one)
                return
            one.status = "stopped"

    # -- requests

    def start_child(self, spec: AnySpec) -> Steps:
        known = self.children.get(spec.id)
        if known is not None:
            raise Refused("AlreadyStarted" if known.life else "AlreadyPresent")
        free = set(names_in(self.own[spec.id])) if spec.id in self.own else set()
        names = set(names_in(spec))
        if (names - free) & self.model.names:
            raise Refused("AlreadyStarted")
        self.model.names |= names
        child = self.children[spec.id] = Child(spec, self)
        if not (yield from self.start(child, retried=False)) and self.stopping is None:
            self.forget(child)
            raise Refused("ChildStartFailed")
        self.refuse_if_stopping()

    def terminate_child(self, id: str) -> Steps:
        child = self.known(id)
        yield from self.end(child)
        if child in self.pending:
            self.pending.remove(child)
        child.status = "stopped"
        if child.spec.restart == "temporary":
            self.forget(child)

    def restart_child(self, id: str) -> Steps:
        child = self.stopped(id)
        if not (yield from self.start(child, retried=False)) and self.stopping is None:
            child.status = "stopped"
            raise Refused("ChildStartFailed")
        self.refuse_if_stopping()

    def renew_child(self, id: str) -> Steps:
        """Ours: as a crash would have it, but uncounted and without delay."""
        child = self.known(id)
        if child.status == "waiting":
            raise Refused("ChildRestarting")
        yield from self.end(child)
        self.schedule(child, "restarting", self.model.now)
        self.model.tell(child, "restarting", 0.0)
        yield from self.fell_group(child)
        if self.stopping is None:
            yield from self.restart_group(child)
        self.refuse_if_stopping()
        if child.status == "waiting" or (child in self.pending and child.due == inf):
            raise Refused("ChildRestarting")
        if not child.acked:
            raise Refused("ChildStartFailed")

    def delete_child(self, id: str) -> Steps:
        self.forget(self.stopped(id))
        yield from ()

    def refuse_if_stopping(self) -> None:
        if self.stopping is not None:
            raise Refused("SupervisorStopping")

    def known(self, id: str) -> Child:
        if id not in self.children:
            raise Refused("NoSuchChild")
        return self.children[id]

    def stopped(self, id: str) -> Child:
        child = self.known(id)
        if child in self.pending or child.status == "waiting":
            raise Refused("ChildRestarting")
        if child.life:
            raise Refused("ChildRunning")
        return child
