"""The tree as it is now, for people and programs: ``TreeNode`` from the supervisors' records. Nobody is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.messages.system import TreeNode
from supervisor.reports import describe
from supervisor.spec import SupervisorSpec

if TYPE_CHECKING:
    from supervisor.record import ChildRecord
    from supervisor.runtime import TreeRuntime


def node_of(child: ChildRecord, runtime: TreeRuntime) -> TreeNode:
    """Describe a child with everything below it."""
    supervisor = runtime.supervisors.get(child.id)
    is_supervisor = isinstance(child.spec, SupervisorSpec)
    below = list(supervisor.children.values()) if is_supervisor and supervisor is not None else []
    nodes = [node_of(one, runtime) for one in below]
    up = [node.uptime_s for node in nodes if node.uptime_s is not None]  # a supervisor acks after its children
    if child.started_at is not None:
        up.append(runtime.clock.monotonic() - child.started_at)
    return TreeNode(
        id=child.id,
        kind="supervisor" if is_supervisor else "worker",
        status=str(child.shown_status),
        restarts=child.restarts,
        last_exit=None if child.last_reason is None else describe(child.last_reason),
        uptime_s=max(up, default=None),
        mailbox=len(child.cell.queue),
        pid=None if child.incarnation is None else child.incarnation.pid,
        children=nodes,
    )
