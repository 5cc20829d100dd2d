"""A guest is used like any other actor: calls, casts, monitors, links, both ways, whatever loop runs either side."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio
import pytest

from supervisor import (
    Actor,
    CallFailed,
    ConnectionLost,
    HandlerFailed,
    NotRunning,
    Stopping,
    joinable,
    on,
    open_guest,
)
from supervisor.testing import EventLog, eventually
from tests.supervisor.helpers import Counter, Fail, GetAll, Put
from tests.supervisor.joining.house import guest_program, status, tree_at, until_away, until_joined
from tests.supervisor.process_actors import (
    Add,
    Announce,
    Ask,
    Block,
    Boom,
    BoomCall,
    Downs,
    Hold,
    LinkTo,
    Mirror,
    Note,
    Noted,
    Point,
    Quit,
    Refuse,
    Send,
    Sleep,
    Tell,
    Watch,
    WhoAreYou,
)
from tests.supervisor.processes import task_child

pytestmark = pytest.mark.anyio


async def test_a_few_lines_join_a_tree(path: Path) -> None:
    class Adder(Actor):
        @on(Add)
        async def _(self, message: Add) -> int:
            return message.left + message.right

    async with tree_at(path) as tree, open_guest(path, "Guest", Adder) as guest:
        assert await tree.ref("Guest").call(Add(1, 2)) == 3
        assert guest.incarnation == 1


async def test_calls_and_casts_both_ways_with_typed_replies(path: Path, loop: str) -> None:
    async with tree_at(path, task_child("Peer")) as tree:
        with guest_program(path, loop) as program:
            await until_joined(tree)
            guest = tree.ref("Guest")
            who = await guest.call(WhoAreYou())
            assert (who["pid"], who["incarnation"]) == (program.pid, 1)
            assert await guest.call(Mirror(Point(1, 2))) == Point(2, 1)
            assert await guest.call(Ask("Peer", 20, 22)) == 42
            for number in range(5):
                guest.cast(Tell("Peer", number))
            await guest.call(Send("Peer", 5))
            assert await tree.ref("Peer").call(Noted()) == [0, 1, 2, 3, 4, 5]
            for number in range(100):
                await guest.send(Note(number))
            assert await guest.call(Noted()) == list(range(100))
            assert await tree.ref("Peer").call(Ask("Guest", 3, 4)) == 7
            with pytest.raises(HandlerFailed, match="not today") as refused:
                await guest.call(Refuse())
            assert refused.value.code == "later"


async def test_what_the_tree_shows_of_it(path: Path, loop: str) -> None:
    async with tree_at(path) as tree:
        state = tree.introspection.state("Guest")
        assert (state.status, state.pid, state.restarts, state.incarnation) == ("absent", None, 0, 0)
        for joins in (1, 2):
            with guest_program(path, loop) as program:
                await until_joined(tree, joins)
                state = tree.introspection.state("Guest")
                assert (state.pid, state.restarts, state.incarnation) == (program.pid, joins - 1, joins)
                assert state.uptime_s is not None
                tree.ref("Guest").cast(Note(1))
                await eventually(lambda: tree.introspection.state("Guest").summary == {"numbers": 1})
            await until_away(tree)
        node = tree.view().children[0]
        assert (node.id, node.status, node.pid) == ("Guest", "absent", None)


async def test_killed_it_is_down_at_once_and_what_waits_for_it_fails(path: Path, loop: str) -> None:
    async with tree_at(path, task_child("Watcher")) as tree:
        tree.ref("Watcher").cast(Watch("Guest"))
        log = EventLog(tree.stream, ["lifecycle", "crashes", "steps"])
        with guest_program(path, loop) as program:
            await until_joined(tree)
            guest = tree.ref("Guest")
            in_hand = guest.request(Sleep(60), timeout=60)
            await log.wait_for(sleeps=60)
            behind = guest.request(Add(1, 1), timeout=60)
            killed = time.monotonic()
            program.signal(signal.SIGKILL)
            with anyio.fail_after(5):
                with pytest.raises(ConnectionLost):
                    await in_hand
                with pytest.raises(NotRunning):
                    await behind
            await eventually(lambda: status(tree) == "absent")
            assert time.monotonic() - killed < 1.0
            with pytest.raises(NotRunning):
                await guest.call(Add(1, 1))
            gone = "Guest#1: crash: ConnectionLost: it went without a word: its link ended"
            assert await tree.ref("Watcher").call(Downs()) == [gone]
            (report,) = log.topic("crashes")
            assert (report["actor"], report["last_message"], report["will_restart"]) == ("Guest", "Sleep", False)


async def test_what_it_has_forked_does_not_hide_its_end(path: Path) -> None:
    from tests.supervisor.joining.strangers import ForkAndHold

    async with tree_at(path) as tree:
        with guest_program(path) as program:
            await until_joined(tree)
            guest = tree.ref("Guest")
            guest.cast(ForkAndHold())
            await guest.call(Noted())
            program.signal(signal.SIGKILL)
            await until_away(tree, within=2.0)


async def test_a_crash_is_reported_and_a_new_incarnation_joins(path: Path, loop: str) -> None:
    async with tree_at(path, task_child("Watcher"), intensity=0) as tree:
        tree.ref("Watcher").cast(Watch("Guest"))
        with tree.stream.subscribe(["crashes"]) as crashes, guest_program(path, loop) as program:
            await until_joined(tree)
            guest = tree.ref("Guest")
            with pytest.raises(HandlerFailed, match="boom in a call") as caught:
                await guest.call(BoomCall())
            assert "process_actors.py" in caught.value.traceback
            report = (await anext(aiter(crashes))).data
            assert (report["error"], report["last_message"]) == ("ValueError", "BoomCall")
            assert "raise ValueError" in report["traceback"]
            await until_joined(tree, 2)
            who = await guest.call(WhoAreYou())
            assert (who["pid"], who["incarnation"]) == (program.pid, 2)
            assert await tree.ref("Watcher").call(Downs()) == ["Guest#1: crash: ValueError: boom in a call"]
            assert tree.introspection.state("Guest").restarts == 1


@pytest.mark.parametrize(
    ("restart", "said", "stays"),
    [
        ("permanent", Quit(), True),
        ("transient", Quit(), False),
        ("transient", Boom("x"), True),
        ("temporary", Boom("x"), False),
    ],
)
async def test_what_follows_its_own_end_is_its_own_policy(path: Path, restart: str, said: Quit, stays: bool) -> None:
    async with tree_at(path) as tree:
        with guest_program(path, restart=restart) as program:
            await until_joined(tree)
            tree.ref("Guest").cast(said)
            if stays:
                await until_joined(tree, 2)
            else:
                assert await program.ended() == ("normal" if said == Quit() else "crash: ValueError: x")
                assert (status(tree), program.process.returncode) == ("absent", 0)


async def test_it_monitors_an_actor_of_the_tree(path: Path, loop: str) -> None:
    async with tree_at(path, task_child("Peer")) as tree:
        with guest_program(path, loop):
            await until_joined(tree)
            guest = tree.ref("Guest")
            guest.cast(Watch("Peer"))
            await guest.call(Noted())
            tree.ref("Peer").cast(Boom("peer"))
            with anyio.fail_after(10):
                while not (downs := await guest.call(Downs())):
                    await anyio.sleep(0.01)
            assert downs == ["Peer#1: crash: ValueError: peer"]


async def test_who_links_himself_to_it_goes_down_with_it_and_takes_it_down(path: Path, loop: str) -> None:
    async with tree_at(path, task_child("Peer"), intensity=9) as tree:
        with guest_program(path, loop) as program:
            await until_joined(tree)
            peer = tree.ref("Peer")
            peer.cast(LinkTo("Guest"))
            await peer.call(Noted())
            peer.cast(Boom("the peer"))
            await until_joined(tree, 2)
            assert tree.introspection.state("Guest").last_exit == "crash: ValueError: the peer"
            peer.cast(LinkTo("Guest"))
            await peer.call(Noted())
            program.signal(signal.SIGKILL)
            await eventually(lambda: tree.introspection.state("Peer").incarnation == 3)


async def test_a_link_of_its_own_takes_it_down_and_nobody_else(path: Path, loop: str) -> None:
    async with tree_at(path, task_child("Peer"), intensity=9) as tree:
        with guest_program(path, loop) as program:
            await until_joined(tree)
            guest, peer = tree.ref("Guest"), tree.ref("Peer")
            guest.cast(LinkTo("Peer"))
            await guest.call(Noted())
            peer.cast(Boom("the peer"))
            await until_joined(tree, 2)
            guest.cast(LinkTo("Peer"))
            await guest.call(Noted())
            program.signal(signal.SIGKILL)
            await until_away(tree)
            assert (await peer.call(WhoAreYou()))["incarnation"] == 2


async def test_introspection_reaches_it(path: Path, loop: str) -> None:
    async with tree_at(path) as tree:
        look = tree.introspection
        with pytest.raises(NotRunning, match="Guest is absent"):
            await look.suspend("Guest")
        with guest_program(path, loop), look.trace("Guest") as trace:
            await until_joined(tree)
            guest = tree.ref("Guest")
            await look.suspend("Guest")
            guest.cast(Note(1))
            assert status(tree) == "suspended"
            await look.resume("Guest")
            assert await guest.call(Noted()) == [1]
            assert [(await anext(aiter(trace))).data["message"] for _ in range(2)] == ["Note", "Noted"]
            tree.inject_fault("Guest", KeyError("injected"))
            await until_joined(tree, 2)
            assert "KeyError" in str(look.state("Guest").last_exit)


async def test_it_publishes_to_the_stream(path: Path) -> None:
    async with tree_at(path) as tree:
        with guest_program(path), tree.stream.subscribe(["sayings"]) as sayings:
            await until_joined(tree)
            tree.ref("Guest").cast(Announce("sayings", "one"))
            assert (await anext(aiter(sayings))).data["text"] == "one"


# ---------------------------------------------------------------- what is said to it while it is away


async def test_casts_wait_for_it_in_order_and_none_is_handled_twice(path: Path, loop: str) -> None:
    async with tree_at(path) as tree:
        guest = tree.ref("Guest")
        for number in range(3):
            guest.cast(Note(number))
        with guest_program(path, loop) as program:
            await until_joined(tree)
            assert await guest.call(Noted()) == [0, 1, 2]
            log = EventLog(tree.stream, ["steps"])
            in_hand = guest.request(Sleep(60), timeout=60)
            await log.wait_for(sleeps=60)
            for number in range(50):  # more than the window of the link: some wait on either side of it
                guest.cast(Note(number))
            program.signal(signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                await in_hand
        await until_away(tree)
        with guest_program(path, loop):
            await until_joined(tree, 2)
            assert await guest.call(Noted()) == list(range(50))


async def test_its_mailbox_is_the_one_of_its_place(path: Path) -> None:
    from supervisor import Mailbox

    async with tree_at(path, place=joinable("Guest", mailbox=Mailbox(3, "drop_oldest"))) as tree:
        guest = tree.ref("Guest")
        for number in range(5):
            guest.cast(Note(number))
        assert tree.dead_letters == {"mailbox full": 2}
        with guest_program(path):
            await until_joined(tree)
            await eventually(lambda: tree.introspection.state("Guest").mailbox == 0)  # a call takes room, too
            assert await guest.call(Noted()) == [2, 3, 4]
            assert tree.introspection.state("Guest").bound == 3


async def test_what_waits_for_it_dies_with_its_place(path: Path) -> None:
    async with tree_at(path) as tree:
        tree.ref("Guest").cast(Note(1))
        await tree.supervisor("root").terminate_child("Guest")
        assert tree.dead_letters == {"not running": 1}
        assert status(tree) == "stopped"
        tree.ref("Guest").cast(Note(2))
        assert tree.dead_letters == {"not running": 2}
        await tree.supervisor("root").restart_child("Guest")
        with guest_program(path):
            await until_joined(tree)
            assert await tree.ref("Guest").call(Noted()) == []


async def test_calls_that_wait_fail_at_once_when_it_is_asked_to_stop(path: Path) -> None:
    async with tree_at(path, place=joinable("Guest", shutdown=60)) as tree:
        log = EventLog(tree.stream, ["steps"])
        with guest_program(path):
            await until_joined(tree)
            guest = tree.ref("Guest")
            in_hand = guest.request(Sleep(60), timeout=60)
            await log.wait_for(sleeps=60)
            behind = guest.request(Hold(), timeout=60)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tree.supervisor("root").terminate_child, "Guest")
                with anyio.fail_after(5), pytest.raises(Stopping):
                    await behind
                assert not in_hand.done
                tree.shorten_deadline(0)
            with pytest.raises(CallFailed):
                await in_hand


async def test_an_actor_of_the_tree_may_be_anywhere_to_a_guest(path: Path) -> None:
    """Also another guest."""
    async with tree_at(path, joinable("Other")) as tree:
        with guest_program(path), guest_program(path, "trio", name="Other"):
            await until_joined(tree)
            await until_joined(tree, name="Other")
            assert await tree.ref("Guest").call(Ask("Other", 1, 2)) == 3
            assert await tree.ref("Other").call(Ask("Guest", 1, 2)) == 3


async def test_a_blocked_guest_fills_its_mailbox_and_nobody_waits(path: Path) -> None:
    from supervisor import MailboxFull

    async with tree_at(path, task_child("Peer"), place=joinable("Guest", shutdown=0.2)) as tree:
        with guest_program(path):
            await until_joined(tree)
            guest = tree.ref("Guest")
            guest.cast(Block(60))
            sent = 0
            with pytest.raises(MailboxFull), anyio.fail_after(10):
                while True:
                    guest.cast(Note(sent))
                    sent += 1
                    if sent % 64 == 0:
                        await anyio.sleep(0)
            assert 1024 <= sent <= 1024 + 33
            assert await tree.ref("Peer").call(Add(1, 1)) == 2


async def test_the_tree_of_another_program_is_not_its_own(path: Path) -> None:
    """A guest's program may run a tree of its own beside it."""
    counter = Counter()
    async with tree_at(path) as tree:
        async with tree_at(path.with_name("other.sock")) as other, open_guest(path, "Guest", lambda: counter):
            tree.ref("Guest").cast(Put(1))
            assert await tree.ref("Guest").call(GetAll()) == [1]
            assert status(other) == "absent"
            tree.ref("Guest").cast(Fail("x"))
            await until_joined(tree, 2)
            assert os.getpid() == tree.introspection.state("Guest").pid
        await until_away(tree)
