"""What is counted, limited and told, where a fault of one word would be enough."""

from __future__ import annotations

import anyio
import pytest

from supervisor import Backoff, ChildSpec, ChildStartFailed, Reason, Shutdown, SupervisorSpec, open_tree
from supervisor.testing import EventLog, VirtualClock, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Put
from tests.supervisor.otp.kit import Sleeper, ends

pytestmark = pytest.mark.anyio


async def test_each_restart_that_is_needed_counts_as_one_and_what_is_done_by_hand_does_not() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)], intensity=9)) as tree:
        for _ in range(3):
            tree.ref("a").cast(Fail())
            await settle()
        root = tree.supervisor("root")
        assert [child.restarts for child in await root.which_children()] == [3]
        assert tree.view().children[0].restarts == 3
        await root.terminate_child("a")
        await root.restart_child("a")
        assert tree.view().children[0].restarts == 3
        (counted,) = [one.series for one in tree.introspection.figures() if one.series.name == "a"]
        assert (counted.restarts, dict(counted.ends)) == (3, {"crash": 3, "shutdown": 1})


@pytest.mark.parametrize(("deadline", "takes"), [(1.0, 1.0), (3.0, 2.0)])
async def test_a_deadline_shortens_a_limit_and_never_lengthens_it(deadline: float, takes: float) -> None:
    clock = VirtualClock()
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: Sleeper(9), shutdown=2)]), clock=clock) as tree:
        log = EventLog(tree.stream)
        tree.shorten_deadline(deadline)
        tree.request_shutdown("enough")
        await clock.advance(takes - 0.01)
        assert ends(log, "a") == []
        await clock.advance(0.01)
        assert ends(log, "a") == ["killed"]
        assert log.topic("crashes") == [], "it was expected"


class _Late(Counter):
    """Hangs in its second start and in its third."""

    async def on_start(self) -> None:
        if self.context.incarnation in (2, 3):
            await anyio.sleep_forever()


async def test_what_was_cast_to_one_whose_restart_takes_too_long_waits_for_the_next() -> None:
    clock = VirtualClock()
    backoff = Backoff(first=1, factor=1, most=1, jitter=0)
    spec = SupervisorSpec("root", [ChildSpec("a", _Late, start_timeout=1)], intensity=9, period=60, backoff=backoff)
    async with open_tree(spec, clock=clock) as tree:
        tree.ref("a").cast(Fail())
        await clock.advance(1)
        tree.ref("a").cast(Put(1))
        await clock.advance(1)
        tree.ref("a").cast(Put(2))  # it has been given up, and waits for its backoff
        await clock.advance(1 + 1 + 1)
        assert await tree.ref("a").call(GetAll()) == [1, 2]
        assert tree.dead_letters == {}


async def test_what_was_cast_to_one_whose_start_by_hand_takes_too_long_dies_with_it() -> None:
    clock = VirtualClock()
    spec = SupervisorSpec("root", [ChildSpec("a", _Late, start_timeout=1)], intensity=9)
    async with open_tree(spec, clock=clock) as tree, anyio.create_task_group() as tasks:
        await tree.supervisor("root").terminate_child("a")

        async def restart() -> None:
            with pytest.raises(ChildStartFailed, match="no ack within 1 s"):
                await tree.supervisor("root").restart_child("a")

        tasks.start_soon(restart)
        await settle()
        tree.ref("a").cast(Put(1))
        await clock.advance(1)
        tree.ref("a").cast(Put(2))
        assert tree.dead_letters == {"not running": 2}


async def test_a_stop_reaches_an_actor_with_its_reason() -> None:
    told: list[Reason] = []

    class Listening(Counter):
        async def on_stop(self, reason: Reason) -> None:
            told.append(reason)

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Listening)], intensity=9)) as tree:
        await tree.supervisor("root").terminate_child("a")
        await tree.supervisor("root").restart_child("a")
        tree.request_shutdown("enough")
        await tree.wait()
    assert told == [Shutdown("terminated on request"), Shutdown("enough")]
