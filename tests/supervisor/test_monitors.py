"""Monitors, links and subscriptions of an actor: who is told of which end, and when that is over."""

from __future__ import annotations

import dataclasses

import anyio
import anyio.to_thread
import pytest

from protocol.messages.common import Message
from supervisor import (
    Backoff,
    ChildSpec,
    Crash,
    Down,
    HandlerFailed,
    Subscription,
    SupervisorSpec,
    on,
    open_tree,
)
from supervisor.testing import EventLog, VirtualClock, eventually, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold, Incarnation, Put, StopYourself

pytestmark = pytest.mark.anyio


class Do(Message, frozen=True):
    what: str
    to: str


class Busybody(Counter):
    @on(Do)
    async def _(self, message: Do) -> None:
        getattr(self.context, message.what)(self.context.ref(message.to))


def _pair(watcher: Counter, restart: str = "permanent") -> SupervisorSpec:
    return SupervisorSpec(
        "root",
        [ChildSpec("target", Counter, restart=restart), ChildSpec("w", lambda: watcher)],  # type: ignore[arg-type]
        intensity=100,
    )


async def test_a_monitor_reports_each_end_with_its_incarnation_until_it_is_taken_off() -> None:
    watcher = Busybody()
    async with open_tree(_pair(watcher)) as tree:
        tree.ref("w").cast(Do("monitor", "target"))
        tree.ref("w").cast(Do("monitor", "target"))
        await settle()
        for incarnation in (1, 2):
            tree.ref("target").cast(Fail("x"))
            await eventually(lambda incarnation=incarnation: len(watcher.downs) == incarnation)  # type: ignore[misc]
            await eventually(lambda: tree.view().children[0].status == "running")
        assert [(down.name, down.incarnation) for down in watcher.downs] == [("target", 1), ("target", 2)]
        reason = watcher.downs[0].reason
        assert isinstance(reason, Crash)
        assert reason.error_type == "ValueError"
        tree.ref("w").cast(Do("demonitor", "target"))
        await settle()
        tree.ref("target").cast(Fail("x"))
        await eventually(lambda: tree.view().children[0].restarts == 3)
        await settle()
        assert len(watcher.downs) == 2


async def test_a_monitor_on_one_that_has_ended_or_never_was_tells_at_once() -> None:
    watcher = Busybody()
    async with open_tree(_pair(watcher, "transient")) as tree:
        tree.ref("target").cast(StopYourself())
        await settle()
        tree.ref("w").cast(Do("monitor", "target"))
        tree.ref("w").cast(Do("monitor", "nobody"))
        await settle()
        assert [(down.name, down.incarnation) for down in watcher.downs] == [("target", 1), ("nobody", 0)]


async def test_a_supervisor_can_be_monitored_too() -> None:
    watcher = Busybody()
    spec = SupervisorSpec("root", [SupervisorSpec("below"), ChildSpec("w", lambda: watcher)])
    async with open_tree(spec) as tree:
        root = tree.supervisor("root")
        await root.terminate_child("below")
        await root.restart_child("below")
        tree.ref("w").cast(Do("monitor", "below"))
        await settle()
        assert watcher.downs == [], "it runs again"
        await root.terminate_child("below")
        assert [(down.name, down.incarnation) for down in watcher.downs] == [("below", 2)]


async def test_a_monitor_dies_with_the_watcher() -> None:
    watcher = Busybody()
    async with open_tree(_pair(watcher)) as tree:
        tree.ref("w").cast(Do("monitor", "target"))
        tree.ref("w").cast(Fail())
        await eventually(lambda: tree.view().children[1].restarts == 1)
        tree.ref("target").cast(Fail())
        await eventually(lambda: tree.view().children[0].restarts == 1)
        await settle()
        assert watcher.downs == []


async def test_downs_come_before_other_messages() -> None:
    watcher = Busybody()
    seen: list[int] = []
    async with open_tree(_pair(watcher)) as tree:
        tree.ref("w").cast(Do("monitor", "target"))
        held = tree.ref("w").request(Hold(), timeout=60)
        await settle()
        for value in range(5):
            tree.ref("w").cast(Put(value))
        tree.ref("target").cast(Fail())
        await eventually(lambda: tree.view().children[0].restarts == 1)
        watcher.downs = _Spy(seen, watcher)
        watcher.hold.set()
        assert await held == 1
        await tree.ref("w").call(GetAll())
        assert seen == [0], "no cast had been handled when the notice was"


class _Spy(list[Down]):
    def __init__(self, seen: list[int], actor: Counter) -> None:
        super().__init__()
        self._seen = seen
        self._actor = actor

    def append(self, down: Down) -> None:
        self._seen.append(len(self._actor.values))


@pytest.mark.parametrize(("victim", "other"), [("target", "w"), ("w", "target")])
async def test_linked_actors_go_down_together(victim: str, other: str) -> None:
    async with open_tree(_pair(Busybody())) as tree:
        log = EventLog(tree.stream)
        tree.ref("w").cast(Do("link", "target"))
        await settle()
        tree.ref(victim).cast(Fail())
        await log.wait_for(event="started", actor=other, incarnation=2)
        await log.wait_for(event="started", actor=victim, incarnation=2)
        await settle()
        tree.ref(victim).cast(Fail())
        await log.wait_for(event="started", actor=victim, incarnation=3)
        await settle()
        assert not log.read(event="started", actor=other, incarnation=3), "a link is of one incarnation"


async def test_a_link_is_over_when_one_of_the_two_has_ended() -> None:
    watcher = Busybody()
    async with open_tree(_pair(watcher)) as tree:
        tree.ref("w").cast(Do("link", "target"))
        await settle()
        tree.ref("target").cast(StopYourself())
        await settle()
        tree.ref("target").cast(Fail())
        await settle()
        assert [child.restarts for child in tree.view().children] == [2, 0]
        tree.ref("w").cast(Fail())
        await settle()
        assert [child.restarts for child in tree.view().children] == [2, 1]
        assert tree.ref("target").cell.watchers is None, "nothing is left of it"


@pytest.mark.parametrize(("victim", "other"), [("target", "w"), ("w", "target")])
async def test_a_link_to_one_that_is_being_restarted_is_with_its_next_incarnation(victim: str, other: str) -> None:
    clock = VirtualClock()
    backoff = Backoff(first=1, factor=1, most=1, jitter=0)
    spec = dataclasses.replace(_pair(Busybody()), backoff=backoff, period=1000)
    async with open_tree(spec, clock=clock) as tree:
        tree.ref("target").cast(Fail())
        await settle()
        tree.ref("w").cast(Do("link", "target"))
        await clock.advance(1)
        assert await tree.ref("target").call(Incarnation()) == 2
        before = await tree.ref(other).call(Incarnation())
        tree.ref(victim).cast(Fail())
        await clock.advance(10)
        assert await tree.ref(other).call(Incarnation()) == before + 1


async def test_a_monitor_that_is_taken_off_takes_its_waiting_notice_back() -> None:
    watcher = Busybody()
    async with open_tree(_pair(watcher)) as tree:
        tree.ref("w").cast(Do("monitor", "target"))
        held = tree.ref("w").request(Hold(), timeout=60)
        await settle()
        tree.ref("target").cast(Fail())
        await settle()
        watcher.context.demonitor(watcher.context.ref("target"))
        watcher.hold.set()
        assert await held == 1
        await settle()
        assert watcher.downs == []


async def test_a_subscription_dies_with_the_incarnation_that_made_it() -> None:
    made: list[Subscription] = []

    class Listening(Counter):
        async def on_start(self) -> None:
            made.append(self.context.subscribe(["state"]))
            with self.context.subscribe(["steps"]) as closed:
                made.append(closed)

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Listening)])) as tree:
        tree.ref("a").cast(Fail())
        await settle()
        tree.stream.publish("state", {"n": 1})
        first, second, third, fourth = made
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        assert (await anext(third)).data == {"n": 1}
        for closed in (second, fourth):
            with pytest.raises(StopAsyncIteration):
                await anext(closed)


async def test_a_normal_end_takes_no_linked_peer_down() -> None:
    async with open_tree(_pair(Busybody(), "transient")) as tree:
        tree.ref("w").cast(Do("link", "target"))
        await settle()
        tree.ref("target").cast(StopYourself())
        await settle()
        assert tree.view().children[1].restarts == 0


async def test_what_waits_for_an_incarnation_alone_dies_with_it() -> None:
    """A timer's message and a monitor's notice that were queued before the crash; also those during ``on_stop``."""
    clock, gate = VirtualClock(), anyio.Event()

    class Ticking(Busybody):
        async def on_start(self) -> None:
            if self.context.incarnation == 1:
                self.context.monitor(self.context.ref("target"))
                self.context.after(1, Put(1))
                self.context.every(1, Put(2))

        async def on_stop(self, reason: object) -> None:
            await gate.wait()

        @on(Hold)
        async def _(self, message: Hold) -> int:
            await self.hold.wait()
            raise ValueError("after all")

    watcher = Ticking()
    async with open_tree(_pair(watcher), clock=clock) as tree:
        held = tree.ref("w").request(Hold(), timeout=100)
        await settle()
        tree.ref("w").cast(Put(3))
        tree.ref("target").cast(Fail())
        await clock.advance(1)
        watcher.hold.set()
        await clock.advance(3)
        gate.set()
        await settle()
        assert tree.view().children[1].restarts == 1
        assert (watcher.values, watcher.downs) == ([3], []), "the cast is kept"
        with pytest.raises(HandlerFailed):
            await held
