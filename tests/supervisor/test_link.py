"""An actor in a process of its own is used like any other: calls, casts, monitors, links, both ways."""

from __future__ import annotations

import gc
import os
import signal

import anyio
import anyio.lowlevel
import pytest

from protocol.messages.common import Message, Request
from supervisor import (
    BootRefused,
    ChildSpec,
    ConnectionLost,
    HandlerFailed,
    Killed,
    MailboxFull,
    ProcessStart,
    Ref,
    Restarting,
    StartFailed,
    TreeStartFailed,
    on,
)
from supervisor.testing import EventLog
from tests.supervisor.helpers import Counter, Fail
from tests.supervisor.process_actors import (
    Add,
    Ask,
    Block,
    Boom,
    Downs,
    Kill,
    Note,
    Noted,
    Quit,
    Sleep,
    Tell,
    Watch,
    WhoAreYou,
)
from tests.supervisor.processes import next_life, process_child, task_child, tree_of, until

pytestmark = pytest.mark.anyio


class NotForWorkers(Request[int], frozen=True):
    """A message that no Worker handles."""


async def test_the_child_has_a_session_of_its_own_and_one_thread() -> None:
    async with tree_of(process_child()) as tree:
        who = await tree.ref("Worker").call(WhoAreYou())
        assert who["session"] == who["pid"]
        assert who["threads"] == 1
        assert tree.view().children[0].pid == who["pid"]


async def test_the_child_ignores_the_terminal_and_a_stray_stop() -> None:
    async with tree_of(process_child()) as tree:
        worker = tree.ref("Worker")
        who = await worker.call(WhoAreYou())
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(who["pid"], number)
        assert await worker.call(WhoAreYou()) == who


async def test_kill_9_is_seen_by_a_monitor_and_restarted() -> None:
    async with tree_of(task_child("Watcher"), process_child()) as tree:
        worker, watcher = tree.ref("Worker"), tree.ref("Watcher")
        watcher.cast(Watch("Worker"))
        os.kill((await worker.call(WhoAreYou()))["pid"], signal.SIGKILL)
        await next_life(worker, 1)
        assert await watcher.call(Downs()) == [f"Worker#1: {Killed(9)}"]


async def test_an_exit_without_a_word_is_a_crash() -> None:
    async with tree_of(task_child("Watcher"), process_child()) as tree:
        worker, watcher = tree.ref("Worker"), tree.ref("Watcher")
        watcher.cast(Watch("Worker"))
        worker.cast(Kill(signal.SIGSEGV))
        await next_life(worker, 1)
        assert await watcher.call(Downs()) == [f"Worker#1: {Killed(11)}"]


async def test_the_call_in_hand_of_a_killed_process_has_an_unknown_outcome_and_others_do_not() -> None:
    async with tree_of(process_child()) as tree:
        worker, steps = tree.ref("Worker"), EventLog(tree.stream, ["steps"])
        who = await worker.call(WhoAreYou())
        in_hand = worker.request(Sleep(30), timeout=30)
        behind = worker.request(Add(1, 1), timeout=30)
        await steps.wait_for(sleeps=30)
        os.kill(who["pid"], signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            await in_hand
        with pytest.raises(Restarting):
            await behind


async def test_queued_casts_survive_a_restart_in_order_and_the_one_in_hand_is_not_redelivered() -> None:
    async with tree_of(process_child()) as tree:
        worker = tree.ref("Worker")
        worker.cast(Kill())
        for number in range(50):  # more than the link's window: some wait on either side of it
            worker.cast(Note(number))
        await next_life(worker, 1)
        assert await worker.call(Noted()) == list(range(50))
        assert (await worker.call(WhoAreYou()))["incarnation"] == 2


async def test_a_wedged_process_fills_its_mailbox_and_nobody_waits() -> None:
    async with tree_of(process_child(shutdown=0.2)) as tree:
        worker = tree.ref("Worker")
        worker.cast(Block(30))
        sent = 0
        with pytest.raises(MailboxFull), anyio.fail_after(5):
            while True:
                worker.cast(Note(sent))
                sent += 1
                await anyio.lowlevel.checkpoint()
        assert 64 <= sent <= 64 + 33  # its bound, the window of the link, and the one in hand


async def test_who_is_killed_in_the_middle_of_on_stop_did_not_end_cleanly() -> None:
    async with tree_of(process_child(arguments={"stop_for": 60.0}, shutdown=0.2)) as tree:
        log = EventLog(tree.stream)
        await tree.supervisor("root").terminate_child("Worker")
        assert log.read(event="exited", actor="Worker")[0]["reason"] == "killed by signal 9"
        assert "State:" in log.read(event="overdue", actor="Worker")[0]["stack"]


async def test_who_does_not_stop_in_time_is_killed() -> None:
    async with tree_of(process_child(shutdown=0.2)) as tree:
        pid = (await tree.ref("Worker").call(WhoAreYou()))["pid"]
        tree.ref("Worker").cast(Block(60))
        with anyio.fail_after(5):
            await tree.supervisor("root").terminate_child("Worker")
        assert not os.path.exists(f"/proc/{pid}")


async def downs_of(worker: Ref, count: int) -> list[str]:
    """What the actor was told, once it was told so often: a notice takes its way over the link."""
    with anyio.fail_after(5):
        while len(downs := await worker.call(Downs())) < count:
            await anyio.sleep(0.01)
    return downs


async def test_the_child_monitors_a_name_that_comes_later() -> None:
    async with tree_of(process_child()) as tree:
        worker = tree.ref("Worker")
        worker.cast(Watch("Late"))
        assert await downs_of(worker, 1) == ["Late#0: shutdown: not running"]
        gc.collect()  # nobody but the monitor holds the name
        await tree.supervisor("root").start_child(task_child("Late"))
        tree.ref("Late").cast(Quit())
        await EventLog(tree.stream).wait_for(event="started", actor="Late", incarnation=2)
        assert (await downs_of(worker, 2))[1:] == ["Late#1: normal"]


async def test_text_that_is_not_utf8_is_refused_to_its_sender_alone() -> None:
    async with tree_of(process_child()) as tree:
        worker = tree.ref("Worker")
        with pytest.raises(HandlerFailed, match="cannot be sent"):
            await worker.call(Ask("\udcff", 1, 2))
        worker.cast(Boom("fine"))
        await next_life(worker, 1)


class Unsendable(Message, frozen=True):
    thing: object


async def test_a_cast_that_cannot_be_encoded_is_a_dead_letter() -> None:
    async with tree_of(process_child()) as tree:
        tree.ref("Worker").cast(Unsendable(object()))
        await until(lambda: tree.dead_letters.get("cannot be encoded") == 1)
        assert await tree.ref("Worker").call(Add(1, 1)) == 2


ENDLESS = "x" * (17 << 20)
"""Longer than a frame may be."""


class Lengthy(Counter):
    """Ends with more to say than a frame may hold."""

    @on(Fail)
    async def _(self, message: Fail) -> None:
        raise ValueError(ENDLESS)


async def test_an_endless_error_is_cut_on_its_way_to_a_process_that_watches() -> None:
    """It once broke off in the middle of telling the watchers, and the supervisor never heard of the end."""
    async with tree_of(ChildSpec("Lengthy", Lengthy), process_child()) as tree:
        worker, log = tree.ref("Worker"), EventLog(tree.stream)
        worker.cast(Watch("Lengthy"))
        await worker.call(Noted())
        tree.ref("Lengthy").cast(Fail())
        await log.wait_for(event="started", actor="Lengthy", incarnation=2)
        (down,) = await worker.call(Downs())
        assert down.startswith("Lengthy#1: crash: ValueError: xxx")
        assert len(down) < 1 << 20


async def test_an_endless_error_is_cut_on_its_way_out_of_a_process() -> None:
    async with tree_of(process_child()) as tree:
        log = EventLog(tree.stream)
        tree.ref("Worker").cast(Boom(ENDLESS[: 15 << 20]))
        await next_life(tree.ref("Worker"), 1)
        assert log.topic("crashes")[0]["error"] == "ValueError"


async def test_a_cast_of_a_process_to_a_full_mailbox_is_a_dead_letter() -> None:
    """Of a task it raises; but the process has gone on before its cast comes to the mailbox."""
    async with tree_of(task_child("Peer"), process_child()) as tree:
        await tree.introspection.suspend("Peer")
        for number in range(70):
            await tree.ref("Worker").send(Tell("Peer", number))
        await until(lambda: tree.dead_letters == {"mailbox full": 6})
        await tree.introspection.resume("Peer")
        assert await tree.ref("Peer").call(Noted()) == list(range(64))
        assert (await tree.ref("Worker").call(WhoAreYou()))["incarnation"] == 1


class Refusing(Counter):
    """Refuses the boot."""

    async def on_start(self) -> None:
        raise BootRefused("no boiler here", 78)


async def test_a_boot_that_a_process_refuses_is_one_that_failed() -> None:
    """Of a task ``BootRefused`` itself comes out, with its exit code: it is not carried over a link."""
    start = ProcessStart(f"{__name__}:Refusing")
    with pytest.raises(TreeStartFailed) as caught:
        async with tree_of(process_child(start=start)):
            raise AssertionError("it started")
    assert isinstance(caught.value.reason, StartFailed)
    assert (caught.value.reason.error_type, caught.value.reason.text) == ("BootRefused", "Worker: no boiler here")
