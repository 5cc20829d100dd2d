"""A supervisor whose children all come and go at run time."""

from __future__ import annotations

from supervisor.spec import Escalate, OnGiveUp, RestartType, SupervisorSpec


def dynamic_supervisor(
    id: str,
    *,
    intensity: int = 3,
    period: float = 5.0,
    max_children: int | None = None,
    restart: RestartType = "permanent",
    on_give_up: OnGiveUp = Escalate(),  # noqa: B008  (frozen and empty)
) -> SupervisorSpec:
    """Specify a supervisor without children of its own (Elixir's ``DynamicSupervisor``).

    Children are started with ``SupervisorRef.start_child``. They do not depend on each other, so the strategy is
    one_for_one; give them ``restart="temporary"`` and each is forgotten when it ends. When the supervisor itself is
    restarted it begins empty, as in OTP. At most ``max_children`` are known at any time, also those that are being
    restarted or that have stopped; ``None``: any number.
    """
    return SupervisorSpec(
        id, intensity=intensity, period=period, restart=restart, on_give_up=on_give_up, max_children=max_children
    )
