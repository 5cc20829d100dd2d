"""How long a child may take: to start, to stop once it was asked, and to be gone once it was killed. In seconds."""

from __future__ import annotations

from supervisor.spec import ChildSpec, SupervisorSpec

# Only a cancellation that is being swallowed, or a process that the kernel cannot end, takes longer than this to be
# gone after a kill; the memory of a large process takes time to free.
TASK_GRACE = 1.0
PROCESS_GRACE = 5.0


def start_limit(spec: ChildSpec | SupervisorSpec) -> float:
    """The time that a child has for its ack."""
    return spec.start_timeout if isinstance(spec, ChildSpec) else float("inf")


def stop_limit(spec: ChildSpec | SupervisorSpec) -> float | None:
    """The time between asking and killing; ``None`` for any. A supervisor has all it needs, as in OTP."""
    if isinstance(spec, SupervisorSpec) or spec.shutdown == "infinity":
        return None
    return 0.0 if spec.shutdown == "brutal_kill" else float(spec.shutdown)


def kill_grace(spec: ChildSpec | SupervisorSpec) -> float | None:
    """The time between killing and calling it stuck. A supervisor names those below it by itself."""
    if isinstance(spec, SupervisorSpec):
        return None
    return TASK_GRACE if spec.isolation == "task" else PROCESS_GRACE
