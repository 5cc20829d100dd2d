"""What an operator may see of any actor of a running tree, and ask of it past its mailbox.

Semantics: OTP's ``sys`` (``get_state``, ``suspend``, ``resume``, ``trace``). The state is read without asking the
actor, so it is answered with the actor wedged; of one in a process of its own the summary is what it said last.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from protocol.messages.system import ActorState
from supervisor.errors import NoSuchActor, NotRunning
from supervisor.mailbox import Phase
from supervisor.monitor import Resume, Suspend, Trace
from supervisor.reasons import Crash, StartFailed
from supervisor.record import Status
from supervisor.reply import Pending
from supervisor.requests import SupervisorRef
from supervisor.spec import ChildSpec, SupervisorSpec
from supervisor.tracing import PREFIX, topic_of
from supervisor.view import node_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from supervisor.record import ChildRecord
    from supervisor.runtime import TreeRuntime
    from supervisor.stream import Subscription
    from supervisor.tally import Figures


class Introspection:
    """The state of any actor, and orders to it. Used on the event loop of the tree only."""

    def __init__(self, runtime: TreeRuntime) -> None:
        self._runtime = runtime

    def state(self, name: str) -> ActorState:
        """Describe an actor or a supervisor (``sys:get_status/1``). Nobody is asked.

        Raises:
            NoSuchActor: the tree knows no such name.
        """
        child = self._known(name)
        cell, reason, life = child.cell, child.last_reason, child.incarnation
        node = node_of(child, self._runtime)
        return ActorState(
            name=name,
            kind=node.kind,
            status=node.status,
            supervisor=child.supervisor_id or None,
            incarnation=cell.incarnation,
            pid=node.pid,
            restarts=node.restarts,
            uptime_s=node.uptime_s,
            last_exit=node.last_exit,
            traceback=(reason.traceback or None) if isinstance(reason, Crash | StartFailed) else None,
            mailbox=node.mailbox,
            bound=cell.bound,
            waiting=dict(Counter(_kind(letter) for letter in cell.queue)),
            last_message=None if life is None else life.last_message,
            summary={} if life is None else _plain(life.summary()),
        )

    def spec(self, name: str) -> ChildSpec | SupervisorSpec:
        """Return the specification of an actor or a supervisor.

        Raises:
            NoSuchActor: the tree knows no such name.
        """
        return self._known(name).spec

    def suspend(self, name: str, *, timeout: float = 5.0) -> Pending[None]:
        """Have an actor handle nothing but system messages until it is resumed or restarted (``sys:suspend/1``).

        Await the result: it comes when the message in hand is done. Messages wait meanwhile within the bound of the
        mailbox, callers within their time limits; a stop, a crash and a restart go their way. Its liveness limit goes
        on, so one that beats from its handlers is restarted when that has passed.

        Raises:
            NoSuchActor: the tree knows no such actor.
            CallFailed: from the result; it does not run, or ended, or was not done with its message in time.
        """
        return self._order(name, Suspend(), timeout)

    def resume(self, name: str, *, timeout: float = 5.0) -> Pending[None]:
        """Have an actor handle its messages again (``sys:resume/1``). Raises as :meth:`suspend` does."""
        return self._order(name, Resume(), timeout)

    def resume_all(self) -> None:
        """Have every suspended actor handle its messages again, without waiting for it."""
        for child in list(self._runtime.children.values()):
            if child.shown_status == Status.SUSPENDED:
                self.resume(child.id)

    async def restart(self, name: str) -> ActorState:
        """Stop a child and start it again, with those that fall with it: see ``SupervisorRef.renew_child``.

        Raises:
            NoSuchActor: the tree knows no such name, or it is the root.
            SupervisorError: one of its subclasses: it cannot be restarted now, or failed to start.
            StopIncomplete: it would not end.
        """
        child = self._known(name)
        if not child.supervisor_id:
            raise NoSuchActor(f"{name} is the whole tree: nobody is above it to restart it")
        await SupervisorRef(self._runtime, child.supervisor_id).renew_child(name)
        return self.state(name)

    def trace(self, name: str, bound: int = 256) -> Subscription:
        """Name each message that an actor takes in hand, and how each call is answered, until closed (``sys:trace/2``).

        The same as a subscription to the topic ``trace/NAME``. It goes on over restarts.

        Raises:
            NoSuchActor: the tree knows no such actor.
        """
        self.require_actor(name)
        return self._runtime.stream.subscribe([topic_of(name)], bound)

    def admit(self, name: str, pid: int) -> Callable[[socket.socket], None]:
        """Let a process from outside serve a name that is :func:`~supervisor.spec.joinable`.

        What is returned is to be called at once with its link: a connected stream socket, non-blocking.

        Raises:
            Refused: why not, with a code of ``protocol.wire.Code``.
        """
        from supervisor.guest import admit  # only trees that are joined need it

        return admit(self._runtime, name, pid)

    def figures(self) -> list[Figures]:
        """Return what metrics are made of: what each actor and supervisor has done and does. Nobody is asked.

        Those that were started at run time under one supervisor are counted together, as ``SUPERVISOR/*``.
        """
        return self._runtime.tally.figures(self._runtime.children.values(), self._runtime.clock.monotonic())

    def dead_letters(self) -> dict[str, int]:
        """Return how many messages nobody handled, by reason."""
        return dict(self._runtime.registry.dead_letters)

    # -- told by the tree

    def interest(self, topic: str, wanted: bool) -> None:
        """A topic has got its first subscriber, or lost its last."""
        if topic.startswith(PREFIX):
            child = self._runtime.children.get(topic.removeprefix(PREFIX))
            if child is not None and child.cell.phase is Phase.RUNNING:
                child.cell.put_system(Trace(wanted))

    def started(self, child: ChildRecord) -> None:
        """An incarnation serves its mailbox from now on."""
        if self._runtime.stream.is_heard(topic_of(child.id)):
            child.cell.put_system(Trace(True))

    # -- orders

    def _order(self, name: str, request: Suspend | Resume, timeout: float) -> Pending[None]:
        child = self.require_actor(name)
        cell = child.cell
        order: Pending[None] = Pending(name, request, timeout, cell.deadlines, cell.backend)
        order.asked = cell
        if cell.phase is not Phase.RUNNING:
            error = cell.refusal() if cell.phase > Phase.DECLARED else NotRunning(f"{name} is {child.shown_status}")
            order.settle(None, error)
        else:
            cell.put_system(order)
        return order

    def require_actor(self, name: str) -> ChildRecord:
        """Return the record of an actor. Raises :class:`NoSuchActor` for an unknown name, or that of a supervisor."""
        child = self._known(name)
        if isinstance(child.spec, SupervisorSpec):
            raise NoSuchActor(f"{name} is a supervisor: it handles no messages")
        return child

    def _known(self, name: str) -> ChildRecord:
        child = self._runtime.children.get(name)
        if child is None:
            raise NoSuchActor(f"nobody here is called {name!r}; there are: {', '.join(sorted(self._runtime.children))}")
        return child


def _kind(letter: object) -> str:
    return type(letter.message if isinstance(letter, Pending) else letter).__name__


def _plain(summary: Mapping[str, object]) -> dict[str, Any]:
    """Return a summary as it can be sent: what is no plain value is shown as text."""
    try:
        plain: dict[str, Any] = msgspec.to_builtins(dict(summary), str_keys=True, enc_hook=repr)
        msgspec.msgpack.encode(plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return {"error": f"the summary cannot be sent: {error}"}
    return plain
