"""Which process host serves which child: one each, or one for a group that falls as one.

The process children of a ``one_for_all`` supervisor that want the same modules and the same environment share a host.
What is imported is imported once, a restart of the group is a fork for each, and the death of the host, which takes all
of them along, does nothing that the death of one of them would not do.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from supervisor.hosting import ProcessHost
from supervisor.mailbox import Phase

if TYPE_CHECKING:
    from supervisor.mailbox import Cell
    from supervisor.spec import ProcessStart

_of_cell: dict[Cell, ProcessHost] = {}
_of_group: dict[Hashable, ProcessHost] = {}


def host_of(cell: Cell, start: ProcessStart, group: Cell | None = None) -> ProcessHost:
    """Return the host that serves the child of this name, made if need be. It outlives the child's incarnations.

    Args:
        group: the supervisor whose children may share hosts; ``None``: the child has one of its own.
    """
    host = _of_cell.get(cell)
    if host is None:
        if group is None:
            host = ProcessHost(start.preload, start.environment)
        else:
            key = (group, start.preload, frozenset(start.environment.items()))
            host = _of_group.get(key)
            if host is None:
                host = _of_group[key] = ProcessHost(start.preload, start.environment, shared=True)
        _of_cell[cell] = host
    return host


async def leave_host(cell: Cell) -> None:
    """An incarnation of this name has ended: let go of its host, unless another incarnation will follow.

    While that one is waited for (a backoff, a cool-down), the host stays warm; whoever calls it off lets go of it.
    """
    if cell.phase is not Phase.RESTARTING:
        await end_host(cell)


async def end_host(cell: Cell) -> None:
    """Let go of the host that was kept for this name. If nobody else shares it, it is ended, and so is all below it.

    Harmless if there is none.
    """
    host = _of_cell.pop(cell, None)
    if host is not None and host not in _of_cell.values():
        for key in [key for key, its in _of_group.items() if its is host]:
            del _of_group[key]
        await host.end()
