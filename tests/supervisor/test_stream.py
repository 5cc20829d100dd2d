from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from supervisor import ChildSpec, SupervisorSpec, open_tree
from supervisor.stream import EventStream
from supervisor.testing import VirtualClock, settle
from tests.supervisor.helpers import Counter, Fail

pytestmark = pytest.mark.anyio


async def test_subscribers_get_what_is_published_to_their_topics_from_then_on() -> None:
    stream = EventStream(VirtualClock(datetime(2026, 5, 1, tzinfo=UTC)))
    stream.publish("steps", {"step": 0})
    with stream.subscribe(["steps", "queue", "steps"]) as subscription:
        stream.publish("steps", {"step": 1})
        stream.publish("logs", {"text": "x"})
        stream.publish("queue", {"jobs": 2})
        first, second = await anext(subscription), await anext(subscription)
        assert (first.topic, first.data, first.at) == ("steps", {"step": 1}, datetime(2026, 5, 1, tzinfo=UTC))
        assert (second.topic, second.data) == ("queue", {"jobs": 2})
        assert subscription.take() is None


async def test_a_slow_subscriber_loses_the_oldest_and_is_told_how_many() -> None:
    stream = EventStream(VirtualClock())
    slow, quick = stream.subscribe(["steps"], bound=3), stream.subscribe(["steps"])
    for step in range(10):
        stream.publish("steps", {"step": step})
    assert slow.lagged == 7
    assert [(await anext(slow)).data["step"] for _ in range(3)] == [7, 8, 9]
    assert (quick.lagged, (await anext(quick)).data) == (0, {"step": 0})


async def test_a_closed_subscription_ends_its_iteration_after_what_waits() -> None:
    stream = EventStream(VirtualClock())
    subscription = stream.subscribe(["steps"])
    seen: list[int] = []

    async def read() -> None:
        seen.extend([event.data["step"] async for event in subscription])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await settle()
        stream.publish("steps", {"step": 1})
        stream.publish("steps", {"step": 2})
        subscription.close()
        subscription.close()
        stream.publish("steps", {"step": 3})
    assert seen == [1, 2]


async def test_the_stream_ends_with_its_tree() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)])) as tree:
        subscription = tree.stream.subscribe(["lifecycle"])
        tree.ref("a").cast(Fail())
    events = [event.data["event"] async for event in subscription]
    assert events[-1] == "exited"


async def test_what_is_published_is_copied() -> None:
    stream = EventStream(VirtualClock())
    subscription = stream.subscribe(["steps"])
    data = {"step": 1}
    stream.publish("steps", data)
    data["step"] = 2
    assert (await anext(subscription)).data == {"step": 1}


async def test_a_senseless_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EventStream(VirtualClock()).subscribe(["steps"], bound=0)
