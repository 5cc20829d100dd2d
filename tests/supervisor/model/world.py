"""The world of the rules: workers that start, crash and hang, and time. Nothing here is real."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from supervisor import ChildSpec, SupervisorSpec
from supervisor.spec import names_in
from tests.supervisor.model.rules import CLEAN, AnySpec, Child, Request, Steps, Supervisor, Wait


@dataclass
class Door:
    """What the world does to the workers of a name."""

    shut: bool = False
    """A start waits."""
    failures: int = 0
    """So many starts, of those that pass, fail."""
    held: bool = False
    """A stop waits."""


class Worker:
    """One incarnation of an actor, as far as its supervisor can tell."""

    def __init__(self, model: Model, child: Child) -> None:
        self.model, self.child = model, child
        self.door = model.door(child.spec.id)
        self.phase = "starting"
        self.reason = ""
        self.cut_off = inf
        """When its own clean-up is cut off, if it ended by itself."""

    def begin(self) -> None:
        if self.phase == "starting" and not self.door.shut:
            if self.door.failures:
                self.door.failures -= 1
                self.child.ending(self.model)
                self.finish("start failed")
            else:
                self.phase = "running"
                self.child.ack(self.model)

    def ask(self, reason: str) -> None:
        if self.phase == "starting":
            self.finish(reason)
        elif self.phase == "running":
            self.leave(reason)

    def end_itself(self, reason: str) -> None:
        assert isinstance(self.child.spec, ChildSpec)
        if isinstance(self.child.spec.shutdown, float):
            self.cut_off = self.model.now + self.child.spec.shutdown
        self.leave(reason)

    def leave(self, reason: str) -> None:
        self.phase, self.reason = "ending", reason
        self.child.ending(self.model)
        if not self.door.held:
            self.finish(reason)

    def kill(self) -> None:
        self.finish("killed" if self.reason in CLEAN else self.reason)

    def finish(self, reason: str) -> None:
        self.phase = "over"
        self.child.over(self.model, reason)


@dataclass
class Model:
    """A whole tree, and the time in it."""

    spec: SupervisorSpec
    now: float = 0.0
    told: list[tuple[object, ...]] = field(default_factory=list)
    """What became public, in order: supervisor, event, child, incarnation, detail."""
    numbers: dict[str, int] = field(default_factory=dict)
    doors: dict[str, Door] = field(default_factory=dict)
    lives: list[tuple[Supervisor, Steps, Wait]] = field(default_factory=list)
    exit_code: int | None = None
    tied: bool = False
    """Two things came due at the same instant, and which of them is first is nobody's rule."""

    def __post_init__(self) -> None:
        self.names = set(names_in(self.spec))
        self.root = Child(self.spec, None, status="starting")
        self.numbers[self.spec.id] = 1
        self.root.life = self.top = Supervisor(self, self.root)
        self.top.begin()
        self.settle()

    def new_life(self, child: Child) -> Worker | Supervisor:
        return Worker(self, child) if isinstance(child.spec, ChildSpec) else Supervisor(self, child)

    def door(self, name: str) -> Door:
        return self.doors.setdefault(name, Door())

    def tell(self, child: Child, event: str, detail: object = None) -> None:
        boss = "" if child.boss is None else child.boss.spec.id
        self.told.append((boss, event, child.spec.id, self.numbers[child.spec.id], detail))

    def supervisors(self) -> dict[str, Supervisor]:
        return {one.spec.id: one for one, _, _ in self.lives}

    def workers(self) -> Iterable[Worker]:
        for supervisor in self.supervisors().values():
            for child in supervisor.children.values():
                if isinstance(child.life, Worker):
                    yield child.life

    def settle(self) -> None:
        """Let everybody go on until all wait for the world or for time."""
        while able := [life for life in self.lives if life[2].ready() or life[2].until <= self.now]:
            self.tied = self.tied or len(able) > 1
            (supervisor, steps, wait), index = able[0], self.lives.index(able[0])
            try:
                self.lives[index] = (
                    supervisor,
                    steps,
                    next(steps) if wait.until < 0 else steps.send(bool(wait.ready())),
                )
            except StopIteration:
                del self.lives[index]

    def dues(self) -> list[float]:
        waits = [wait.until for _, _, wait in self.lives]
        return sorted([*waits, *(worker.cut_off for worker in self.workers() if worker.phase == "ending")])

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (dues := self.dues()) and dues[0] <= end:
            self.now = dues[0]
            self.tied = self.tied or dues[:2] == [self.now] * 2
            for worker in [one for one in self.workers() if one.phase == "ending" and one.cut_off <= self.now]:
                worker.kill()
            self.settle()
        self.now = end

    def stop(self) -> None:
        """The user has had enough."""
        if self.top.stopping is None:
            self.exit_code = 0
        self.top.ask("shutdown")

    def code(self) -> int:
        """The exit code of the tree, once it has ended."""
        return int(self.top.gave_up) if self.exit_code is None else self.exit_code

    def request(self, supervisor_id: str, what: str, argument: str | AnySpec) -> Request:
        supervisor = self.supervisors().get(supervisor_id)
        if supervisor is None or supervisor.stopping is not None:
            return Request(Supervisor.life, "SupervisorStopping")
        busy = supervisor.busy
        if what == "terminate_child" and busy is not None and busy.spec.id == argument:
            busy.aborted = True  # a start in progress is given up
        request = Request(lambda one: getattr(one, what)(argument))
        supervisor.requests.append(request)
        return request
