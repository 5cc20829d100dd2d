"""What an actor knows of its place: its name, its peers, its timers, and how to ask to be stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from supervisor.reasons import Normal, Reason
from supervisor.ref import Ref

if TYPE_CHECKING:
    from protocol.backend import TimerHandle
    from protocol.messages.common import Message
    from protocol.messages.system import TreeNode
    from supervisor.clock import Clock
    from supervisor.incarnation import Surroundings
    from supervisor.introspection import Introspection
    from supervisor.mailbox import Cell
    from supervisor.monitor import Down
    from supervisor.stream import Subscription


class Life(Protocol):
    """The running incarnation, as its context uses it."""

    number: int
    cell: Cell
    surroundings: Surroundings
    over: bool
    """Whether nothing of it is left."""

    def ask_stop(self, reason: Reason) -> None: ...

    def spawn(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], name: str) -> None: ...

    def own(self, key: Hashable, close: Callable[[], None]) -> None:
        """Call ``close`` when the incarnation ends."""

    def disown(self, key: Hashable) -> None: ...

    def beat(self, phase: str, limit: float | None) -> None: ...

    def fail(self, reason: Reason) -> None: ...

    def hear(self, down: Down) -> None: ...

    def tick(self, message: Message) -> None: ...


class Timer:
    """A message that an actor sends itself later, or again and again. It dies with the incarnation."""

    __slots__ = ("_handle", "_life", "_message", "_period")

    def __init__(self, life: Life, seconds: float, message: Message, *, repeat: bool) -> None:
        self._life = life
        self._message = message
        self._period = seconds if repeat else None
        life.own(self, self.cancel)
        self._handle: TimerHandle | None = life.surroundings.clock.call_later(seconds, self._fire)

    def cancel(self) -> None:
        """The message will not come any more; one already in the mailbox is not taken back. Harmless twice."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._life.disown(self)

    def _fire(self) -> None:
        if self._period is None:
            self._handle = None
            self._life.disown(self)
        else:
            self._handle = self._life.surroundings.clock.call_later(self._period, self._fire)
        self._life.tick(self._message)


class Context:
    """Given to each actor before ``on_start``; one per incarnation."""

    __slots__ = ("_life", "clock", "incarnation", "name")

    def __init__(self, life: Life) -> None:
        self._life = life
        self.name: str = life.cell.name
        self.incarnation: int = life.number
        """Which life of this name it is, from 1."""
        self.clock: Clock = life.surroundings.clock

    @property
    def self_ref(self) -> Ref:
        """The actor's own ref; calling it from a handler fails with ``CallingSelf``."""
        return Ref(self._life.cell)

    def ref(self, name: str) -> Ref:
        """The ref of any actor of the tree, running or not."""
        return Ref(self._life.surroundings.cell(name))

    def spawn(self, function: Callable[..., Awaitable[object]], *args: Any, name: str | None = None) -> None:
        """Run an async function beside the mailbox. It ends with the incarnation; its exception crashes the actor."""
        self._living().spawn(function, args, name or str(getattr(function, "__name__", "task")))

    def stop(self, reason: Reason = Normal()) -> None:  # noqa: B008  (frozen and empty)
        """End this actor after the message in hand. A permanent one is restarted, whatever the reason."""
        self._life.ask_stop(reason)

    def after(self, seconds: float, message: Message) -> Timer:
        """Send this actor a message once, in so many seconds. It dies with the incarnation, queued or not."""
        return Timer(self._living(), seconds, message, repeat=False)

    def every(self, seconds: float, message: Message) -> Timer:
        """Send this actor a message again and again, first in ``seconds``. While one waits, no other is queued.

        Raises:
            ValueError: ``seconds`` is not positive.
        """
        if not seconds > 0:
            raise ValueError(f"a message every {seconds!r} s would leave no time for anything else")
        return Timer(self._living(), seconds, message, repeat=True)

    def monitor(self, ref: Ref) -> None:
        """Have each end of an incarnation of that actor told to the ``on_down`` handler (``erlang:monitor/2``).

        The monitor survives restarts of the watched, not of the watcher. Of one that has ended for good a ``Down``
        comes at once. Monitoring twice is monitoring once.
        """
        life = self._living()
        key = (life, "monitor", ref.name)
        life.own(key, lambda: self.demonitor(ref))
        life.surroundings.watch(key, ref.name, life.hear)

    def demonitor(self, ref: Ref) -> None:
        """Take the monitor off. A notice that waits is taken back (``erlang:demonitor(Ref, [flush])``)."""
        key = (self._life, "monitor", ref.name)
        self._life.disown(key)
        self._life.surroundings.unwatch(key, ref.name)
        self._life.cell.drop_downs(ref.name)

    def link(self, ref: Ref) -> None:
        """Go down together (``erlang:link/1``): when either incarnation ends other than normally, so does the other.

        It joins this incarnation to that of the peer that ends next, and is over when the first of the two has ended.
        A peer that has ended for good brings this actor down at once.
        """
        life = self._living()
        around = life.surroundings
        peer = around.cell(ref.name)
        number = peer.next_to_end
        key = (life, "link", peer.name)

        def unlink() -> None:
            around.unwatch(key, life.cell.name)
            around.unwatch(key, peer.name)

        def self_down(down: Down) -> None:
            unlink()
            if not isinstance(down.reason, Normal):
                around.fail(peer.name, number, down.reason)

        def peer_down(down: Down) -> None:
            unlink()
            if not isinstance(down.reason, Normal):
                life.fail(down.reason)

        around.watch(key, life.cell.name, self_down)
        around.watch(key, peer.name, peer_down)

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        """Put an entry on a topic of the event stream."""
        self._life.surroundings.publish(topic, data)

    def is_heard(self, topic: str) -> bool:
        """Whether anybody may subscribe to the topic; for whoever would have to put an entry together first."""
        return self._life.surroundings.is_heard(topic)

    def subscribe(self, topics: Iterable[str], bound: int = 256) -> Subscription:
        """Receive what is published to these topics from now on (see ``EventStream.subscribe``).

        Close it when done; the end of the incarnation closes it, too. In a process of its own, only what that process
        itself publishes is seen.
        """
        life = self._living()
        subscription = life.surroundings.subscribe(topics, bound)
        subscription.on_close = lambda: life.disown(subscription)
        life.own(subscription, subscription.close)
        return subscription

    @property
    def introspection(self) -> Introspection:
        """The state of any actor, and what an operator may ask of it. Not in a process of its own: ``RuntimeError``."""
        return self._life.surroundings.introspection

    def tree(self) -> TreeNode:
        """The whole tree as it is now."""
        return self._life.surroundings.tree()

    def request_shutdown(self, reason: str, exit_code: int = 0) -> None:
        """Ask that the whole tree be stopped; ``Tree.wait`` reports the reason and the exit code."""
        self._life.surroundings.request_shutdown(reason, exit_code)

    def beat(self, phase: str, limit: float | None = None) -> None:
        """Say that there is progress. Callable from any thread.

        From now on, without another beat for ``limit`` seconds (``None``: the limit of the child specification), the
        actor is ended with ``Timeout`` and restarted. Ignored where the specification has no liveness limit.
        """
        self._life.beat(phase, limit)

    def _living(self) -> Life:
        """Return the incarnation, if it still lives: nothing may be left behind in the name of the next one."""
        if self._life.over:
            raise RuntimeError(f"incarnation {self.incarnation} of {self.name} has ended")
        return self._life
