"""A call by itself: settled once, and everybody told who has to be."""

from __future__ import annotations

import anyio
import pytest

from protocol.backend import current_backend
from supervisor import CallFailed, CallTimeout, HandlerFailed, Refused, Restarting, open_tree
from supervisor.mailbox import Cell, Phase
from supervisor.registry import Registry
from supervisor.reply import Pending, as_call_failure
from supervisor.testing import VirtualClock, settle
from tests.supervisor.helpers import Counter, Defer, GetAll, one

pytestmark = pytest.mark.anyio


def _call(clock: VirtualClock, timeout: float = 60) -> tuple[Pending[list[int]], Cell]:
    cell = Registry(clock, current_backend()).declare("a")
    cell.phase = Phase.RUNNING
    return Pending("a", GetAll(), timeout, cell.deadlines, cell.backend), cell


async def test_it_is_settled_once() -> None:
    pending, _ = _call(VirtualClock())
    told: list[Pending[list[int]]] = []
    for _ in range(3):
        pending.on_done(told.append)
    assert (pending.done, pending.error, told) == (False, None, [])
    assert pending.settle([1]) is True
    assert told == [pending] * 3
    assert pending.settle([2], Restarting("late")) is False
    pending.cancel()
    assert (pending.result(), pending.error, await pending) == ([1], None, [1])
    pending.on_done(told.append)
    assert told == [pending] * 4, "at once, as it is done"


async def test_its_deadline_settles_it() -> None:
    clock = VirtualClock()
    pending, _ = _call(clock, timeout=2)
    assert pending.deadline == 2
    await clock.advance(1.9)
    assert not pending.done
    await clock.advance(0.1)
    with pytest.raises(CallTimeout, match="a did not answer GetAll in time"):
        pending.result()


async def test_a_caller_that_leaves_gives_it_up() -> None:
    pending, cell = _call(VirtualClock())
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pending.wait)
            await settle()
            assert not pending.done
            scope.cancel()
    assert pending.done
    with pytest.raises(CallFailed, match="the call to a was given up by its caller"):
        pending.result()
    assert cell.deadlines.monotonic() == 0


async def test_whoever_holds_it_need_not_once_it_is_settled() -> None:
    holder: set[Pending[object]] = set()
    one, _ = _call(VirtualClock())
    two, _ = _call(VirtualClock())
    for pending in (one, two):
        pending.held_by(holder)  # type: ignore[arg-type]
    one.settle([])
    assert holder == {two}


async def test_settled_in_a_mailbox_it_takes_up_no_room() -> None:
    pending, cell = _call(VirtualClock())
    cell.bound = 1
    cell.call(pending)
    assert pending.queued_in is cell
    assert not cell.abandoned
    pending.cancel()
    assert cell.abandoned
    assert pending.queued_in is None
    another = Pending("a", GetAll(), 60, cell.deadlines, cell.backend)
    cell.call(another)
    assert list(cell.queue) == [another]


async def test_a_failed_callback_is_the_end_of_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    pending, _ = _call(VirtualClock())
    told: list[object] = []

    def fail(_: object) -> None:
        raise ValueError("in the callback")

    pending.on_done(fail)
    pending.on_done(told.append)
    pending.settle([1])
    assert told == [pending]
    assert "a callback of a call failed" in caplog.text


async def test_trying_again_and_again_lets_others_run() -> None:
    """A call that fails at once gives way all the same."""
    ran: list[int] = []

    async def beside() -> None:
        ran.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beside)
        pending, _ = _call(VirtualClock())
        pending.settle(None, Restarting("a is restarting"))
        for _ in range(10):
            with pytest.raises(Restarting):
                await pending.wait()
        assert ran == [1]


def test_what_a_caller_is_told_of_an_error() -> None:
    failed = Restarting("a is restarting")
    assert as_call_failure(failed) is failed
    refused = as_call_failure(Refused("closed", code="shut"))
    assert isinstance(refused, HandlerFailed)
    assert (refused.error_type, refused.text, refused.code, refused.traceback) == ("Refused", "closed", "shut", "")
    try:
        raise KeyError("k")
    except KeyError as error:
        crashed = as_call_failure(error)
    assert isinstance(crashed, HandlerFailed)
    assert (crashed.error_type, crashed.text) == ("KeyError", "'k'")
    assert "raise KeyError" in crashed.traceback


async def test_a_time_limit_that_is_no_number_is_refused_and_keeps_no_other_from_passing() -> None:
    clock = VirtualClock()
    async with open_tree(one(Counter()), clock=clock) as tree:
        ref = tree.ref("a")
        with pytest.raises(ValueError, match="not a number"):
            ref.request(Defer(), timeout=float("nan"))
        calls = [ref.request(Defer(), timeout=timeout) for timeout in (2.0, 1.0)]
        with pytest.raises(ValueError, match="not a number"):
            await ref.call(Defer(), timeout=float("nan"))
        await clock.advance(1)
        assert [call.done for call in calls] == [False, True]
        await clock.advance(1)
        assert [call.done for call in calls] == [True, True]
