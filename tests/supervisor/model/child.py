"""What a supervisor of the model knows of one child."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from supervisor import ChildSpec, SupervisorSpec

if TYPE_CHECKING:
    from tests.supervisor.model.rules import Supervisor
    from tests.supervisor.model.world import Model, Worker

AnySpec = ChildSpec | SupervisorSpec


@dataclass(eq=False)
class Child:
    """One child, over all its lives."""

    spec: AnySpec
    boss: Supervisor | None
    status: str = "not started"
    life: Worker | Supervisor | None = None
    exit: str | None = None
    """Its reason, until the supervisor has dealt with it."""
    left_alone: bool = True
    """False once the supervisor has asked it to stop."""
    acked: bool = False
    retried: bool = False
    aborted: bool = False
    ended_before: bool = False
    restarts: int = 0
    attempt: int = 0
    due: float = 0.0
    since: float | None = None
    ran_for: float = 0.0

    def ack(self, model: Model) -> None:
        self.acked, self.since = True, model.now
        self.restarts += self.retried and self.ended_before
        self.status = "running"
        model.tell(self, "started")

    def ending(self, model: Model) -> None:
        if self.since is not None:
            self.ran_for, self.since = model.now - self.since, None
        if self.boss is None:
            self.status = "stopping"
        elif self.left_alone:
            self.status = "exited"

    def over(self, model: Model, reason: str) -> None:
        self.life, self.exit, self.ended_before = None, reason, True
        model.tell(self, "exited", reason)
        if self.boss is None:
            self.status = "stopped"
        elif self.boss.children.get(self.spec.id) is self:
            self.boss.exits.append(self)


def limit_of(child: Child) -> float:
    """How long it may take to stop."""
    limit = child.spec.shutdown if isinstance(child.spec, ChildSpec) else inf
    return limit if isinstance(limit, float) else inf


def is_over(child: Child) -> bool:
    return child.status in ("stopped", "not started") and not child.life
