"""A supervisor whose children all come and go at run time."""

from __future__ import annotations

from supervisor.backoff import Backoff
from supervisor.spec import Escalate, OnGiveUp, RestartType, SupervisorSpec


def dynamic_supervisor(
    id: str,
    *,
    intensity: int = 3,
    period: float = 5.0,
    backoff: Backoff | None = None,
    max_children: int | None = None,
    restart: RestartType = "permanent",
    on_give_up: OnGiveUp = Escalate(),  # noqa: B008  (frozen and empty)
) -> SupervisorSpec:
    """Specify a supervisor without children of its own (Elixir's ``DynamicSupervisor``).

    Children are started with ``SupervisorRef.start_child``, or ``start_numbered`` where the id does not matter. They do
    not depend on each other: each is restarted alone, and when the supervisor stops all are asked at once, which takes
    as long as the slowest of them. Give them ``restart="temporary"`` and each is forgotten when it ends. When the
    supervisor itself is restarted it begins empty, as in OTP. At most ``max_children`` are known at any time, also
    those that are being restarted or that have stopped; ``None``: any number.
    """
    return SupervisorSpec(
        id,
        intensity=intensity,
        period=period,
        backoff=backoff,
        restart=restart,
        on_give_up=on_give_up,
        max_children=max_children,
        dynamic=True,
    )
