"""OTP's table of restart type and exit reason, and that exits are told."""

from __future__ import annotations

import gc
import weakref

import pytest

from supervisor import ChildSpec, CoolDown, HandlerFailed, Reason, SupervisorSpec, on, open_tree
from supervisor.testing import EventLog, eventually, settle
from tests.supervisor.helpers import Counter, Fail, Hold, StopYourself

pytestmark = pytest.mark.anyio


class ShutsDown(Counter):
    async def on_start(self) -> None:
        self.journal.append("start")


async def test_a_report_is_cut_where_the_error_is_endless() -> None:
    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Counter)])) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail("long\n" * 100_000))
        await log.wait_for(event="started", actor="a")
        (report,) = log.topic("crashes")
        assert len(report["reason"]) <= 1_000
        assert "\n" not in report["reason"], "a reason is one line"
        assert len(report["traceback"]) <= 20_000
        assert len(tree.view().children[0].last_exit or "") <= 1_000


async def test_what_a_crashed_incarnation_held_is_free_when_the_next_one_starts() -> None:
    """The frames of its error once kept every local variable alive: a port stayed taken."""
    held: list[weakref.ref[set[int]]] = []
    free: list[bool] = []

    class Holds(Counter):
        async def on_start(self) -> None:
            free.append(all(one() is None for one in held))
            resource: set[int] = set()
            held.append(weakref.ref(resource))
            if len(held) < 4:
                raise ExceptionGroup("why", [KeyError(1)]) from OSError(f"with {resource} open")

        @on(Hold)
        async def _(self, message: Hold) -> int:
            resource: set[int] = set()
            held.append(weakref.ref(resource))
            raise ValueError(f"with {resource} open")

    gc.disable()  # nothing may wait for the collector of cycles
    try:
        spec = SupervisorSpec("root", [ChildSpec("a", Holds, on_give_up=CoolDown(0.01))], intensity=10)
        async with open_tree(spec) as tree:
            await eventually(lambda: len(held) == 4)
            await settle()
            with pytest.raises(HandlerFailed):
                await tree.ref("a").call(Hold())
            await eventually(lambda: len(free) == 5)
    finally:
        gc.enable()
    assert all(free)


async def test_on_stop_sees_the_reason_also_of_a_crash() -> None:
    reasons: list[Reason] = []

    class Told(Counter):
        async def on_stop(self, reason: Reason) -> None:
            reasons.append(reason)

    async with open_tree(SupervisorSpec("root", [ChildSpec("a", Told)])) as tree:
        tree.ref("a").cast(Fail("x"))
        await eventually(lambda: tree.view().children[0].restarts == 1)
    assert [type(reason).__name__ for reason in reasons] == ["Crash", "Shutdown"]


async def test_a_failing_on_stop_makes_a_clean_end_a_crash_and_does_not_hide_an_earlier_one() -> None:
    class Untidy(Counter):
        async def on_stop(self, reason: Reason) -> None:
            raise OSError("while cleaning up")

    spec = SupervisorSpec("root", [ChildSpec("a", Untidy, restart="transient")])
    async with open_tree(spec) as tree:
        log = EventLog(tree.stream)
        tree.ref("a").cast(Fail("the first"))
        await eventually(lambda: tree.view().children[0].restarts == 1)
        assert "the first" in (tree.view().children[0].last_exit or "")
        crash, after = log.topic("crashes")
        assert "while cleaning up" not in crash["traceback"]
        assert after["error"] == "ValueError"
        assert "ValueError: the first" in after["traceback"]
        assert "OSError: while cleaning up" in after["traceback"]
        tree.ref("a").cast(StopYourself())
        await eventually(lambda: tree.view().children[0].restarts == 2)
        assert "while cleaning up" in (tree.view().children[0].last_exit or "")
        assert log.topic("crashes")[2]["error"] == "OSError"
        assert log.topic("crashes")[2]["will_restart"] is True
        await tree.supervisor("root").terminate_child("a")
        assert (log.topic("crashes")[3]["error"], log.topic("crashes")[3]["will_restart"]) == ("OSError", False)
