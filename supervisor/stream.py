"""The event stream of a tree: topics, to which anybody publishes and subscribes, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from protocol.backend import Backend, Waiter, current_backend
from protocol.messages.common import TailEvent
from supervisor.clock import Clock


class EventStream:
    """Publishing never blocks and never fails; a subscriber that does not keep up loses the oldest and is told."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._subscriptions: dict[str, list[Subscription]] = {}
        self.on_interest: Callable[[str, bool], None] = lambda topic, wanted: None
        """Told when a topic gets its first subscriber, and when it has lost its last."""

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        """Give an entry to every subscriber of the topic."""
        subscriptions = self._subscriptions.get(topic)
        if subscriptions:
            event = TailEvent(topic, self._clock.now(), dict(data))
            for subscription in subscriptions:
                subscription.put(event)

    def is_heard(self, topic: str) -> bool:
        """Whether anybody subscribes to the topic; for whoever would have to put an entry together first."""
        return topic in self._subscriptions

    def subscribe(self, topics: Iterable[str], bound: int = 256) -> Subscription:
        """Receive what is published to these topics from now on, at most ``bound`` entries waiting."""
        if bound < 1:
            raise ValueError(f"the bound of a subscription must be at least 1, not {bound}")
        subscription = Subscription(self, tuple(dict.fromkeys(topics)), bound, current_backend())
        for topic in subscription.topics:
            if topic in self._subscriptions:
                self._subscriptions[topic].append(subscription)
            else:
                self._subscriptions[topic] = [subscription]
                self.on_interest(topic, True)
        return subscription

    def discard(self, subscription: Subscription) -> None:
        """Stop giving entries to a subscription. Harmless twice."""
        for topic in subscription.topics:
            others = self._subscriptions.get(topic)
            if others is not None and subscription in others:
                others.remove(subscription)
                if not others:
                    del self._subscriptions[topic]
                    self.on_interest(topic, False)

    def close(self) -> None:
        """End every subscription: what waits can still be read, then iteration stops."""
        everyone = {id(one): one for several in self._subscriptions.values() for one in several}
        for subscription in everyone.values():
            subscription.close()


class Subscription:
    """An async iterator of :class:`TailEvent`. One reader. ``with`` it, or :meth:`close` it, when done."""

    def __init__(self, stream: EventStream, topics: tuple[str, ...], bound: int, backend: Backend) -> None:
        self.topics = topics
        self.lagged = 0
        """How many entries were lost because the reader did not keep up."""
        self._stream = stream
        self._backend = backend
        self._waiting: deque[TailEvent] = deque(maxlen=bound)
        self._waiter: Waiter | None = None
        self._closed = False
        self.on_close: Callable[[], None] | None = None
        """Called once, when it is closed; for whoever keeps account of it."""

    def put(self, event: TailEvent) -> None:
        """Take an entry from the stream."""
        if len(self._waiting) == self._waiting.maxlen:
            self.lagged += 1
        self._waiting.append(event)
        self._wake()

    def close(self) -> None:
        """Receive nothing more. What waits can still be read; then iteration stops."""
        self._closed = True
        self._stream.discard(self)
        self._wake()
        told, self.on_close = self.on_close, None
        if told is not None:
            told()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> TailEvent:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._waiter = self._backend.waiter()
            await self._waiter
        return self._waiting.popleft()

    def take(self) -> TailEvent | None:
        """Return the next entry if one waits."""
        return self._waiting.popleft() if self._waiting else None

    def waiting(self) -> list[TailEvent]:
        """Return all that waits, and leave it: unread, a subscription is the memory of the newest entries."""
        return list(self._waiting)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._backend.wake(waiter)
