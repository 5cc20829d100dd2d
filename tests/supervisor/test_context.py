"""What an actor can do through its context: monitors, links, timers, spawning, stopping, the tree, the stream."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from supervisor import (
    ChildSpec,
    Context,
    NotRunning,
    Ref,
    Shutdown,
    SupervisorSpec,
    TreeStartFailed,
    on,
    open_tree,
)
from supervisor.testing import EventLog, VirtualClock, eventually, settle
from tests.supervisor.helpers import Counter, Fail, Hold, Incarnation, Put, StopYourself

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
async def test_a_timer_that_leaves_no_time_is_refused(seconds: float) -> None:
    class Hasty(Counter):
        async def on_start(self) -> None:
            self.context.every(seconds, Put(1))

    with pytest.raises(TreeStartFailed, match="no time for anything else"):
        async with open_tree(SupervisorSpec("root", [ChildSpec("a", Hasty)])):
            raise AssertionError("it started")


async def test_timers_fire_repeat_and_die_with_the_incarnation() -> None:
    clock = VirtualClock()

    class Ticking(Counter):
        async def on_start(self) -> None:
            if self.context.incarnation == 1:
                self.context.after(3, Put(1))
                self.context.every(2, Put(2))
                self.cancelled = self.context.after(3, Put(3))
                self.cancelled.cancel()
                self.cancelled.cancel()

    actor = Ticking()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: actor)]), clock=clock) as tree:
        await clock.advance(7)
        assert actor.values == [2, 1, 2, 2]
        tree.ref("a").cast(Fail())
        await clock.advance(10)
        assert actor.values == [2, 1, 2, 2]


async def test_the_context_of_an_incarnation_that_has_ended_takes_nothing() -> None:
    """Whoever kept it (a callback, a thread) would otherwise tick and watch in the name of the next incarnation."""
    contexts: list[Context] = []

    class Kept(Counter):
        async def on_start(self) -> None:
            contexts.append(self.context)

    async with open_tree(SupervisorSpec("root", [ChildSpec("b", Counter), ChildSpec("a", Kept)])) as tree:
        tree.ref("a").cast(Fail())
        await eventually(lambda: tree.view().children[1].restarts == 1)
        old = contexts[0]
        for use in (
            lambda: old.after(1, Put(1)),
            lambda: old.every(1, Put(1)),
            lambda: old.monitor(old.ref("b")),
            lambda: old.link(old.ref("b")),
            lambda: old.subscribe(["state"]),
            lambda: old.spawn(anyio.sleep_forever),
        ):
            with pytest.raises(RuntimeError, match="has ended"):
                use()
        assert tree.ref("b").cell.watchers is None
        old.stop()
        assert await tree.ref("a").call(Incarnation()) == 2


async def test_a_repeating_timer_does_not_fill_the_mailbox_of_a_busy_actor() -> None:
    clock = VirtualClock()

    class Ticking(Counter):
        async def on_start(self) -> None:
            self.context.every(1, Put(1))

    actor = Ticking()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: actor)]), clock=clock) as tree:
        held = tree.ref("a").request(Hold(), timeout=1000)
        await clock.advance(50)
        assert tree.view().children[0].mailbox == 1
        actor.hold.set()
        assert await held == 1


async def test_spawned_tasks_end_with_the_incarnation_after_on_stop() -> None:
    journal: list[str] = []
    runs, goes_on = anyio.Event(), anyio.Event()

    class Spawns(Counter):
        async def on_start(self) -> None:
            self.context.spawn(self._beside, name="beside")
            await runs.wait()

        async def on_stop(self, reason: object) -> None:
            await goes_on.wait()
            journal.append("on_stop")

        async def _beside(self) -> None:
            runs.set()
            try:
                await anyio.sleep_forever()
            finally:
                journal.append("beside")

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Spawns)])) as tree:
        tree.request_shutdown("enough")
        await settle()
        assert journal == [], "it still runs while on_stop does"
        goes_on.set()
        await tree.wait()
    assert journal == ["on_stop", "beside"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_callback_of_the_clock_that_fails_harms_nobody() -> None:
    """asyncio tells its exception handler; trio's timers are ours, and an error of theirs ended the whole program."""
    called = anyio.Event()

    def fail() -> None:
        called.set()
        raise ValueError("in a timer")

    class Hasty(Counter):
        async def on_start(self) -> None:
            self.context.clock.call_later(0, fail)

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Hasty)])) as tree:
        with anyio.fail_after(5):
            await called.wait()
        assert await tree.ref("a").call(Incarnation(), timeout=0.5) == 1
        clock = tree.ref("a").cell.clock
        await clock.sleep(0.001)
        assert await tree.ref("a").call(Incarnation()) == 1


async def test_an_actor_sees_its_place() -> None:
    seen: dict[str, object] = {}

    class Looks(Counter):
        async def on_start(self) -> None:
            seen.update(name=self.context.name, incarnation=self.context.incarnation, tree=self.context.tree().id)
            seen["self"] = self.context.self_ref == self.context.ref("a")
            seen["hash"] = len({self.context.self_ref, self.context.ref("a"), self.context.ref("b")})
            self.context.publish("steps", {"step": 1})

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Looks)])) as tree:
        assert seen == {"name": "a", "incarnation": 1, "tree": "root", "self": True, "hash": 2}
        assert repr(tree.ref("a")) == "<Ref a>"
        assert tree.ref("a") != Ref(tree.ref("b").cell)


async def test_the_tree_ends_when_an_actor_asks_for_it() -> None:
    class Ends(Counter):
        @on(StopYourself)
        async def _(self, message: StopYourself) -> None:
            self.context.request_shutdown("all done", 5)

    async with open_tree(SupervisorSpec("root", [SupervisorSpec("s", [ChildSpec("a", Ends)])])) as tree:
        tree.ref("a").cast(StopYourself())
        report = await tree.wait()
        assert (report.reason, report.exit_code) == (Shutdown("all done"), 5)


async def test_the_fault_port_makes_the_actor_raise() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)])) as tree:
        log = EventLog(tree.stream)
        tree.inject_fault("a", RuntimeError("injected"))
        await log.wait_for(event="started", actor="a", incarnation=2)
        assert log.topic("crashes")[0]["error"] == "RuntimeError"
        with pytest.raises(NotRunning):
            tree.inject_fault("nobody", RuntimeError())


async def test_an_actor_without_progress_is_ended_and_restarted() -> None:
    clock = VirtualClock()
    beats: list[Counter] = []

    class Beating(Counter):
        async def on_start(self) -> None:
            beats.append(self)

    spec = SupervisorSpec("root", [ChildSpec("a", Beating, liveness=10), ChildSpec("b", Counter)])
    async with open_tree(spec, clock=clock) as tree:
        log = EventLog(tree.stream)
        await clock.advance(9)
        await anyio.to_thread.run_sync(beats[0].context.beat, "loading", 30.0)
        await clock.advance(29)
        beats[0].context.beat("training")
        await clock.advance(9.9)
        assert tree.view().children[0].restarts == 0
        await clock.advance(0.2)
        await log.wait_for(event="started", actor="a", incarnation=2)
        assert tree.view().children[0].last_exit == "timeout: no progress for 10 s in phase 'training'"
        assert log.topic("crashes")[0]["reason"].startswith("timeout")
        beats[1].context.beat("x", 5.0)
        await clock.advance(100)
        assert tree.view().children[1].restarts == 0, "without a limit nobody is watched"


async def test_the_view_shows_every_level() -> None:
    actor = Counter()
    spec = SupervisorSpec("root", [SupervisorSpec("s", [ChildSpec("a", lambda: actor)]), ChildSpec("b", Counter)])
    async with open_tree(spec) as tree:
        held = tree.ref("a").request(Hold(), timeout=60)
        await settle()
        tree.ref("a").cast(Put(1))
        node = tree.view()
        assert (node.id, node.kind, node.status, node.pid) == ("root", "supervisor", "running", None)
        inner = node.children[0]
        assert (inner.kind, inner.children[0].mailbox, inner.children[0].restarts) == ("supervisor", 1, 0)
        assert inner.children[0].uptime_s is not None
        assert not held.done
        actor.hold.set()
