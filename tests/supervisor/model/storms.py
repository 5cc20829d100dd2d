"""A storm: a random tree and what happens to it, made from one source of chance, so that it can be made again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from supervisor import Actor, Backoff, ChildSpec, CoolDown, Escalate, SupervisorSpec
from supervisor.spec import names_in
from tests.supervisor.model.rules import Supervisor
from tests.supervisor.model.world import Model

Op = tuple[Any, ...]
"""What is done, and to whom."""
Make = Callable[[str], Callable[[], Actor]]
"""From the name of a worker to its start function."""

TICK = 1 / 64
"""All times are multiples of it, so sums and edges are exact."""
MOST_DEPTH = 3
REQUESTS = (
    *("terminate_child", "restart_child") * 2,
    "delete_child",
    "start_child",
    "renew_child",
)


@dataclass
class Storm:
    spec: SupervisorSpec
    ops: list[Op] = field(default_factory=list)

    @property
    def dynamic(self) -> set[str]:
        """The supervisors whose children end together."""
        roots = [self.spec, *(op[2] for op in self.ops if op[0] == "start_child")]
        return {spec.id for root in roots for spec in supervisors_in(root) if spec.dynamic}

    def __str__(self) -> str:
        return "\n".join([_picture(self.spec), *(f"  {number}: {_shown(op)}" for number, op in enumerate(self.ops))])


def make_storm(chance: random.Random, make: Make, length: int = 40) -> Storm:
    """Make a storm. The model runs along, so that most of it hits something."""
    maker = _Maker(chance, make)
    storm = Storm(maker.group() if maker.narrow else maker.supervisor(depth=1))
    model = Model(storm.spec)
    for _ in range(chance.randint(4, length)):
        op = maker.op(model)
        storm.ops.append(op)
        apply(model, op)
        if model.root.life is None:
            break
    return storm


def is_possible(model: Model, op: Op) -> bool:
    """Whether the world can do this now: an actor that does not run can neither crash nor end."""
    if op[0] not in ("crash", "exit"):
        return True
    return any(worker.child.spec.id == op[1] and worker.phase == "running" for worker in model.workers())


def apply(model: Model, op: Op) -> Any:
    """Do it to the model, and let it settle."""
    answer = None
    match op:
        case ("advance", seconds):
            model.advance(seconds)
        case ("crash", name) | ("exit", name, _):
            reason = "crash" if op[0] == "crash" else op[2]
            next(worker for worker in model.workers() if worker.child.spec.id == name).end_itself(reason)
        case ("shut", name):
            model.door(name).shut = True
        case ("open", name):
            model.door(name).shut = False
            for worker in [one for one in model.workers() if one.child.spec.id == name]:
                worker.begin()
        case ("fail", name, count):
            model.door(name).failures = count
        case ("hold", name):
            model.door(name).held = True
        case ("release", name):
            model.door(name).held = False
            for worker in [one for one in model.workers() if one.child.spec.id == name and one.phase == "ending"]:
                worker.finish(worker.reason)
        case ("stop",):
            model.stop()
        case (what, supervisor, argument):
            answer = model.request(supervisor, what, argument)
    model.settle()
    return answer


class _Maker:
    def __init__(self, chance: random.Random, make: Make) -> None:
        self.chance, self.make = chance, make
        self.count = 0
        self.narrow = chance.random() < 0.4
        """Crashes and requests in one group, again and again: several restarts are pending at a time."""

    def group(self) -> SupervisorSpec:
        pick = self.chance.choice
        children = [
            ChildSpec(name, self.make(name), on_give_up=pick([None, CoolDown(self.odd(20.0))]))
            for name in (self.name("w") for _ in range(pick([3, 4])))
        ]
        backoff = pick([None, Backoff(first=self.odd(1.0), factor=1, most=4, jitter=0, reset_after=60)])
        intensity, strategy = pick([1, 2, 4]), pick(["rest_for_one", "rest_for_one", "one_for_all"])
        return SupervisorSpec("root", children, strategy=strategy, intensity=intensity, period=60.0, backoff=backoff)

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def odd(self, seconds: float) -> float:
        """A time that no other time limit of the storm is equal to."""
        return seconds + self.count * TICK

    # -- the tree

    def supervisor(self, depth: int, auto_shutdown: str = "never") -> SupervisorSpec:
        pick, root = self.chance.choice, depth == 1
        name = "root" if root else self.name("s")
        dynamic = self.chance.random() < 0.2
        own = "never" if dynamic else pick(["never", "never", "any_significant", "all_significant"])
        children = [] if dynamic else [self.child(depth, own) for _ in range(self.chance.randint(1, 4))]
        restart, significant = self._restart(auto_shutdown)
        intensity = pick([1, 2, 3, 5] if root else [0, 1, 2, 3])
        return SupervisorSpec(
            name,
            children,
            strategy="one_for_one" if dynamic else pick(["one_for_one", "one_for_all", "rest_for_one"]),
            dynamic=dynamic,
            intensity=intensity,
            period=8.0,
            backoff=pick(
                [
                    None,
                    None,
                    Backoff(first=self.odd(0.25), factor=1, most=2, jitter=0, reset_after=3.0),
                    Backoff(first=self.odd(0.25), factor=2, most=2, jitter=0, reset_after=3.0),
                ]
            ),
            auto_shutdown=own,
            restart=restart,
            significant=significant,
            on_give_up=pick([Escalate(), CoolDown(self.odd(5.0))]),
        )

    def child(self, depth: int, auto_shutdown: str) -> ChildSpec | SupervisorSpec:
        if depth < MOST_DEPTH and self.chance.random() < 0.2:
            return self.supervisor(depth + 1, auto_shutdown)
        name = self.name("w")
        restart, significant = self._restart(auto_shutdown)
        return ChildSpec(
            name,
            self.make(name),
            restart=restart,
            significant=significant,
            shutdown=self.chance.choice([self.odd(1.0), self.odd(1.0), "infinity"]),
            start_timeout=self.odd(2.0),
            on_give_up=self.chance.choice([None, None, None, CoolDown(self.odd(4.0)), Escalate()]),
        )

    def _restart(self, auto_shutdown: str) -> tuple[Any, bool]:
        restart = self.chance.choice(["permanent", "permanent", "transient", "temporary"])
        return restart, auto_shutdown != "never" and restart != "permanent" and self.chance.random() < 0.5

    # -- what happens to it

    def op(self, model: Model) -> Op:
        pick, roll = self.chance.choice, self.chance.randrange(100)
        running = sorted(one.child.spec.id for one in model.workers() if one.phase == "running")
        supervisors = sorted(model.supervisors().values(), key=lambda one: one.spec.id)
        if self.narrow and roll < 75 and supervisors:
            if roll < 30 and running:
                return ("crash", pick(running))
            if roll < 65:
                what = pick(["terminate_child", "restart_child"])
                return (what, "root", pick(sorted(supervisors[0].children)))
            return ("advance", pick([0.125, 0.5, 1.0]))
        workers = sorted(name for name in model.names if name.startswith("w"))
        if roll < 28 and running:
            return ("crash", pick(running))
        if roll < 36 and running:
            return ("exit", pick(running), pick(["normal", "shutdown"]))
        if roll < 50 and workers:
            return self._door(model, pick(workers))
        if roll < 82 and supervisors:
            return self._request(model, pick(supervisors))
        if roll == 82:
            return ("stop",)
        return ("advance", self._seconds(model, supervisors))

    def _door(self, model: Model, name: str) -> Op:
        door = model.door(name)
        kind = self.chance.choice(["start", "start", "stop", "fail"])
        if kind == "start":
            return ("open" if door.shut else "shut", name)
        if kind == "stop":
            return ("release" if door.held else "hold", name)
        return ("fail", name, self.chance.choice([1, 1, 2, 4]))

    def _request(self, model: Model, supervisor: Supervisor) -> Op:
        id, pick = supervisor.spec.id, self.chance.choice
        ids = sorted(supervisor.children)
        what = pick(REQUESTS)
        if supervisor.spec.dynamic and (len(ids) < 3 or self.chance.random() < 0.3):
            return ("start_child", id, self.child(MOST_DEPTH - 1, "never"))
        if what != "start_child":
            return (what, id, pick(ids or ["nobody"]))
        known = [*supervisor.own.values(), *(child.spec for child in supervisor.children.values())]
        if known and self.chance.random() < 0.5:
            return (what, id, pick(known))
        return (what, id, self.child(MOST_DEPTH - 1, supervisor.spec.auto_shutdown))

    def _seconds(self, model: Model, supervisors: list[Supervisor]) -> float:
        edges = [then + one.spec.period - model.now for one in supervisors for then in one.window]
        edges += [due - model.now for due in model.dues()[:1] if math.isfinite(due)]
        return self.chance.choice([0.5, 3.0, *(edge for edge in edges if edge > 0)])


def all_names(storm: Storm) -> Iterator[str]:
    """Every name that can come up, in order."""
    yield from names_in(storm.spec)
    for op in storm.ops:
        if op[0] == "start_child":
            yield from names_in(op[2])


def supervisors_in(spec: ChildSpec | SupervisorSpec) -> Iterator[SupervisorSpec]:
    """The supervisors among a specification and all below it."""
    if isinstance(spec, SupervisorSpec):
        yield spec
        for child in spec.children:
            yield from supervisors_in(child)


def _shown(op: Op) -> str:
    return " ".join(
        part if isinstance(part, str) else _picture(part).strip() if op[0] == "start_child" else f"{part:g}"
        for part in op
    )


def _picture(spec: ChildSpec | SupervisorSpec, indent: str = "  ") -> str:
    plain = {key: getattr(spec, key) for key in spec.__slots__ if key not in ("id", "children", "start")}
    usual = ChildSpec("x", Actor) if isinstance(spec, ChildSpec) else SupervisorSpec("x")
    odd = " ".join(f"{key}={value}" for key, value in plain.items() if value != getattr(usual, key))
    below = "" if isinstance(spec, ChildSpec) else "".join("\n" + _picture(one, indent + "  ") for one in spec.children)
    return f"{indent}{spec.id}: {odd}{below}"
