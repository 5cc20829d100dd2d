"""One life of one child: the seam between the supervisor and whatever runs its children.

``tree.py`` knows nothing of tasks and processes. It makes an :class:`Incarnation`, starts it, asks it to stop, kills
it, and is told three things through the :class:`Keeper`: the ack, the moment the reason is known, and the end. A task
is run by ``task_child.py``; a process by ``link.py``; a supervisor is its parent's incarnation, too.

The rules that every implementation keeps:

- ``keeper.ended`` may bring a worse reason than ``keeper.ending`` did, if the clean-up failed.
- ``keeper.acked`` at most once, and before ``keeper.ending``; ``keeper.ending`` exactly once, as soon as the reason is
  known; ``keeper.ended`` exactly once, after it, when nothing of the incarnation is left: tasks finished, process and
  descendants gone, name and resources released. No new incarnation starts before.
- All methods are called on the event loop, return at once and never raise. Those after the end do nothing.
- Messages are taken from ``cell`` (:meth:`Cell.take`, :meth:`Cell.arrival`, ``Cell.system``), and only between the ack
  and the end. A call taken out is settled by the incarnation, at the latest when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from supervisor.spec import ChildSpec, SupervisorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from protocol.backend import Backend
    from protocol.messages.system import TreeNode
    from supervisor.clock import Clock
    from supervisor.introspection import Introspection
    from supervisor.mailbox import Cell
    from supervisor.monitor import Down
    from supervisor.reasons import Reason
    from supervisor.stream import Subscription


class Keeper(Protocol):
    """Who is told about an incarnation. Called on the event loop; returns at once."""

    def acked(self, incarnation: Incarnation) -> None:
        """Its ``on_start`` returned: it serves its mailbox now."""

    def ending(self, incarnation: Incarnation, reason: Reason) -> bool:
        """It will end with this reason and takes no more messages. From here on calls to its name fail at once.

        Calls that it holds are settled after this, with ``cell.refusal()``, which now says restarting or stopping.
        True: as things are, another incarnation follows.
        """
        ...

    def ended(self, incarnation: Incarnation, reason: Reason) -> None:
        """Nothing of it is left."""


class Incarnation(Protocol):
    """One life of one child, from start to end."""

    number: int
    """From 1, per name, also over restarts of the supervisor."""
    pid: int | None
    """The process that runs it, where it is one of its own."""

    @property
    def suspended(self) -> bool:
        """Whether it has obeyed an order to handle nothing, and none since to go on."""
        ...

    @property
    def last_message(self) -> str | None:
        """The type name of the newest message that it began to handle, for the crash report."""

    def start(self) -> None:
        """Begin. The ack, or the end with ``StartFailed``, comes through the keeper."""

    def stop(self, reason: Reason) -> None:
        """Ask it to stop with this reason. Whoever asks measures its time, and kills it when that is over.

        It finishes the message in hand, runs ``on_stop``, ends with ``reason``. Before the ack it gives up its start.
        """

    def kill(self, reason: Reason) -> None:
        """End it now, without ``on_stop``; it ends with ``reason``. A process gets SIGKILL with all its descendants, a
        task is cancelled."""

    def fail(self, reason: Reason) -> None:
        """Crash it now with ``reason``, as a linked peer or a spawned task does: what is in hand is cancelled, then
        ``on_stop`` runs."""

    def where(self) -> str:
        """Where it hangs, for the report of one that does not end: a stack, or what the kernel says of the process."""
        ...

    def summary(self) -> Mapping[str, object]:
        """What the actor says of itself, newest known."""
        ...


class Surroundings(Protocol):
    """What an actor's context needs from the world around it. The tree gives it to tasks; in a process of its own the
    link gives it, and sends over the socketpair what belongs to the tree."""

    clock: Clock
    backend: Backend

    def cell(self, name: str) -> Cell:
        """The cell of a name, made if need be."""
        ...

    def publish(self, topic: str, data: Mapping[str, Any]) -> None: ...

    def is_heard(self, topic: str) -> bool:
        """Whether anybody may subscribe to the topic."""
        ...

    def subscribe(self, topics: Iterable[str], bound: int) -> Subscription:
        """Subscribe to the tree's event stream; in a process of its own, to what that process itself publishes."""
        ...

    @property
    def introspection(self) -> Introspection:
        """What an operator may do to the tree; in a process of its own ``RuntimeError``."""
        ...

    def tree(self) -> TreeNode: ...

    def request_shutdown(self, reason: str, exit_code: int) -> None: ...

    def watch(self, watcher: Hashable, name: str, notify: Callable[[Down], None]) -> None:
        """Call ``notify`` at each end of an incarnation of ``name``, and at once if it has ended for good; until
        :meth:`unwatch` with the same ``watcher`` (any hashable object)."""

    def unwatch(self, watcher: Hashable, name: str) -> None: ...

    def fail(self, name: str, incarnation: int, reason: Reason) -> None:
        """Crash that incarnation of ``name`` if it still lives: the other side of a link went down."""


class MakeIncarnation(Protocol):
    """The constructor of ``TaskIncarnation`` and ``ProcessIncarnation``."""

    def __call__(
        self, spec: ChildSpec, cell: Cell, number: int, keeper: Keeper, surroundings: Surroundings
    ) -> Incarnation: ...


def maker_of(spec: ChildSpec, group: Cell | None) -> MakeIncarnation:
    """Return what runs a child of this specification. The class for processes is imported when it is needed.

    Args:
        group: the supervisor whose children fall as one, and so may share a process host; ``None`` if they do not.
    """
    if spec.isolation == "process":
        from supervisor.link import ProcessIncarnation

        return partial(ProcessIncarnation, group=group)
    from supervisor.task_child import TaskIncarnation

    return TaskIncarnation


async def release(spec: ChildSpec | SupervisorSpec, cell_of: Callable[[str], Cell]) -> None:
    """End what was kept warm for the next incarnation of this child, or of any below it: none will follow."""
    if isinstance(spec, SupervisorSpec):
        for child in spec.children:
            await release(child, cell_of)
    elif spec.isolation == "process":
        from supervisor.hosts import end_host

        await end_host(cell_of(spec.id))
