"""What comes from a guest is from outside: whatever it says, its own link ends at worst, and nobody else is harmed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from protocol.framing import encode_frame
from protocol.messages.common import Request
from supervisor import Actor, ChildSpec, HandlerFailed, Mailbox, MailboxFull, joinable, link_traffic, on
from supervisor import link_protocol as wire
from supervisor import outbox as link_outbox
from supervisor.reasons import Crash, Normal
from supervisor.testing import EventLog, eventually
from tests.supervisor.joining.house import ROOT, guest_program, status, tree_at, until_away, until_joined
from tests.supervisor.joining.raw import RawGuest, call, cast, raw, raw_guest
from tests.supervisor.joining.strangers import Shout
from tests.supervisor.process_actors import Add, Block, Hold, Let, Mirror, Note, Noted, Point, Watch
from tests.supervisor.processes import task_child

pytestmark = pytest.mark.anyio

ACKED = wire.Acked(64, "wait")


def bare(**fields: object) -> bytes:
    return encode_frame(fields)


FORBIDDEN: dict[str, bytes] = {
    "no length": bytes(4),
    "an endless length": b"\x7f\xff\xff\xff",
    "no msgpack": b"\x00\x00\x00\x01\xc1",
    "no map": encode_frame([1, 2]),
    "an unknown type": bare(type="burn"),
    "an unknown field": bare(type="deaf", deeply=True),
    "a wrong value": bare(type="taken", letter="x", kind="y"),
    "a text that is none": encode_frame({"type": "deaf"})[:-4] + b"\xff\xfe\xfd\xfc",
    "depth without end": (lambda deep: len(deep).to_bytes(4) + deep)(b"\x81\xa4type" + b"\x91" * 100_000 + b"\xc0"),
    "what only the tree says": encode_frame(wire.Stop(Normal())),
    "an impossible mailbox": bare(type="acked", bound=0, overflow="wait"),
    "a time that is none": bare(type="call", call=1, to="Peer", kind="x", body=None, timeout=math.nan),
    "a time that has been": bare(type="call", call=1, to="Peer", kind="x", body=None, timeout=-1.0),
    "a word of its own to count by": bare(type="lost", to="Peer", kind="x", why="because"),
    "a second ack": encode_frame(ACKED),
    "to stop the tree": encode_frame(wire.RequestShutdown("by a guest", 3)),
    "to crash somebody": encode_frame(wire.Fail(Crash("Error", "by a guest"), "Peer", 1)),
    "a crash report": encode_frame(wire.Publish("crashes", {"actor": "Peer"})),
    "a life": encode_frame(wire.Publish("lifecycle", {"event": "exited", "actor": "Peer"})),
    "a trace of another": encode_frame(wire.Publish("trace/Peer", {"event": "cast"})),
    "a monitor's number twice": encode_frame(wire.Watch(1, "Peer")) * 2,
    "a call's number twice": encode_frame(call(1, "Peer", Hold(), 60)) * 2,
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_what_may_not_be_said_ends_that_link_alone(path: Path, what: str) -> None:
    async with tree_at(path, task_child("Peer"), task_child("Watcher"), intensity=0) as tree:
        tree.ref("Watcher").cast(Watch("Guest"))
        log = EventLog(tree.stream)
        async with raw_guest(path) as guest:
            await until_joined(tree)
            waiting = tree.ref("Guest").request(Add(1, 1), timeout=60)
            await guest.send_bytes(FORBIDDEN[what])
            await guest.cut()
        await until_away(tree)
        assert str(tree.introspection.state("Guest").last_exit).startswith(
            "crash: ProtocolError: it sent what cannot be understood"
        )
        assert waiting.done
        assert [entry["actor"] for entry in log.topic("crashes")] == ["Guest"]
        assert log.read(event="exited", actor="Peer") == []
        assert await tree.ref("Peer").call(Add(1, 1)) == 2
        assert not tree.stopping
        with guest_program(path):
            await until_joined(tree, 2)
            assert await tree.ref("Guest").call(Add(1, 1)) == 2


async def test_what_is_about_nothing_is_passed_over(path: Path) -> None:
    async with tree_at(path, task_child("Peer")) as tree:
        async with raw_guest(path) as guest:
            await until_joined(tree)
            await guest.send(
                wire.Taken(99, "Note"), wire.Settled(99), wire.Unwatch(99), wire.Forget(99), wire.Deaf(),
                wire.Worse(Normal()), wire.Beat("resting", math.nan), wire.Link("Peer"),
            )  # fmt: skip
            await guest.send(call(1, "Peer", Add(1, 1)))
            assert (await guest.receive()) == wire.Settled(1, raw(msgspec.msgpack.encode(2)))
        await until_away(tree)
        assert await tree.ref("Peer").call(Add(1, 1)) == 2, "a link asked for by a guest takes nobody down"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("os:system", b"\xc0"),
        ("builtins:int", b"\x01"),
        ("protocol.messages.common:Message", b"\x80"),
        ("no.such.module:Thing", b"\x80"),
        ("", b"\x80"),
        ("tests.supervisor.process_actors:Worker.handlers", b"\x80"),
        (wire.kind_of(Add(1, 1)), b"\xa2\xff\xfe"),
        (wire.kind_of(Add(1, 1)), msgspec.msgpack.encode({"type": "add", "left": 1})),
    ],
)
async def test_a_message_that_is_none_is_refused_and_nothing_is_imported(path: Path, kind: str, body: bytes) -> None:
    async with tree_at(path, task_child("Peer")) as tree:
        modules = set(sys.modules)
        async with raw_guest(path) as guest:
            await guest.send(wire.Call(1, "Peer", kind, raw(body), 5.0))
            answer = await guest.receive()
            assert isinstance(answer, wire.Settled) and answer.failure is not None
            assert (answer.number, answer.failure.code) == (1, "not_handled")
            await guest.send(wire.Cast("Peer", kind, raw(body)))
            await eventually(lambda: sum(tree.dead_letters.values()) == 1)
            assert set(sys.modules) == modules


@pytest.mark.parametrize("value", [b"\xa1x", b"\xa2\xff\xfe", b"\x80"])
async def test_an_answer_of_another_type_fails_the_call_alone(path: Path, value: bytes) -> None:
    async with tree_at(path) as tree:
        async with raw_guest(path) as guest:
            asked = tree.ref("Guest").request(Mirror(Point(1, 2)), timeout=5)
            letter = await guest.receive()
            assert isinstance(letter, wire.Deliver)
            await guest.send(wire.Taken(letter.letter, "Mirror"), wire.Settled(letter.letter, raw(value)))
            with pytest.raises(HandlerFailed, match="something else"):
                await asked
            assert status(tree) == "running"


async def test_a_guest_of_ours_cannot_stop_the_tree(path: Path) -> None:
    async with tree_at(path) as tree:
        with guest_program(path):
            await until_joined(tree)
            tree.ref("Guest").cast(Shout())
            await until_joined(tree, 2)
            assert "a guest may not stop the tree" in str(tree.introspection.state("Guest").last_exit)
            assert not tree.stopping


# ---------------------------------------------------------------- floods


async def test_a_flood_delays_nobody_else(path: Path) -> None:
    async with tree_at(path, ChildSpec("Peer", Drain), task_child("Other")) as tree:
        words = [sys.executable, "-P", "-m", "tests.supervisor.joining.flooding", str(path), "2"]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        )
        try:
            assert process.stdout is not None
            assert await anyio.to_thread.run_sync(process.stdout.readline) == "floods\n"
            begun, slowest, calls = time.monotonic(), 0.0, 0
            while process.poll() is None:
                asked = time.monotonic()
                assert await tree.ref("Other").call(Add(1, 1)) == 2
                slowest, calls = max(slowest, time.monotonic() - asked), calls + 1
            assert time.monotonic() - begun > 1.0
            assert calls > 20
            assert slowest < 2.0
        finally:
            process.kill()
            process.communicate()
        await until_away(tree)
        letters = tree.dead_letters
        assert letters["not understood"] > 100
        assert set(letters) <= {"not understood", "not running", "mailbox full", "not handled"}


class Drain(Actor):
    """Takes notes, and keeps none."""

    @on(Note)
    async def _(self, message: Note) -> None:
        pass


class GetMuch(Request[str], frozen=True):
    """Answered at length."""


class Plenty(Actor):
    @on(GetMuch)
    async def _(self, message: GetMuch) -> str:
        return "x" * (1 << 20)


async def test_who_asks_and_reads_nothing_is_cut_off_before_it_costs_too_much(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_outbox, "OVERFULL", 8 << 20)
    async with tree_at(path, ChildSpec("Plenty", Plenty), task_child("Peer")) as tree:
        async with raw_guest(path) as guest:
            await until_joined(tree)
            await guest.send(*(call(number, "Plenty", GetMuch(), 60) for number in range(100)))
            await until_away(tree)
            exit = tree.introspection.state("Guest").last_exit
            assert exit == "crash: Unread: it takes nothing of what is sent to it"
        assert await tree.ref("Peer").call(Add(1, 1)) == 2


async def test_who_reads_nothing_fills_its_mailbox_and_nobody_waits(path: Path) -> None:
    async with tree_at(path, place=joinable("Guest", mailbox=Mailbox(10))) as tree:
        async with raw_guest(path):
            await until_joined(tree)
            sent = 0
            with pytest.raises(MailboxFull), anyio.fail_after(5):
                while True:
                    tree.ref("Guest").cast(Note(sent))
                    sent += 1
                    await anyio.sleep(0)
            assert sent == 10 + link_traffic.WINDOW
            with pytest.raises(MailboxFull):
                await tree.ref("Guest").call(Add(1, 1))


async def fails_with(guest: RawGuest, kind: str) -> int:
    """Receive the answer of a call, or of a send, that failed in this way; return its number."""
    answer = await guest.receive()
    assert isinstance(answer, wire.Settled) and answer.failure is not None
    assert answer.failure.kind == kind
    return answer.number


async def test_what_it_has_under_way_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_traffic, "MOST", 3)
    async with tree_at(path, task_child("Peer"), task_child("Busy")) as tree:
        async with raw_guest(path) as guest:
            await guest.send(*(call(number, "Peer", Hold(), 60) for number in range(5)))
            assert [await fails_with(guest, "MailboxFull") for _ in range(2)] == [3, 4]
            tree.ref("Peer").cast(Let("go"))
            assert [(await guest.receive()).number for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
            await tree.introspection.suspend("Busy")
            await guest.send(*(cast("Busy", Note(number)) for number in range(64)))
            await guest.send(*(cast("Busy", Note(number), sent=number) for number in range(64, 69)))
            assert [await fails_with(guest, "MailboxFull") for _ in range(2)] == [67, 68]
            await tree.introspection.resume("Busy")
            assert {(await guest.receive()).number for _ in range(3)} == {64, 65, 66}  # type: ignore[union-attr]
            assert sorted(await tree.ref("Busy").call(Noted())) == list(range(67))
            await guest.send(*(wire.Watch(number, f"name {number}") for number in range(4)))
            await guest.cut()


async def test_what_it_had_under_way_ends_with_it(path: Path) -> None:
    """Calls that it made are given up, monitors are taken off, and a send that waits harms nobody."""
    async with tree_at(path, task_child("Peer")) as tree:
        open_files = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            async with raw_guest(path) as guest:
                await until_joined(tree)
                await guest.send(wire.Watch(1, "Peer"), call(2, "Peer", Hold(), 60), cast("Peer", Block(0), sent=3))
                assert (await guest.receive()) == wire.Settled(3)
            await until_away(tree)
        assert not (tree.ref("Peer").cell.watchers or {})
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= open_files)


async def test_random_bytes_end_the_link_and_no_more(path: Path) -> None:
    import random

    chance = random.Random(7)
    valid = [
        encode_frame(frame)
        for frame in (wire.Taken(1, "Note"), wire.Watch(1, "Peer"), cast("Peer", Note(1)), wire.Summary({"a": 1}))
    ]
    mutate: list[Callable[[bytearray], None]] = [
        lambda data: data.__setitem__(chance.randrange(len(data)), chance.randrange(256)),
        lambda data: data.insert(chance.randrange(len(data)), chance.randrange(256)),
        lambda data: data.__delitem__(chance.randrange(len(data))),
    ]
    async with tree_at(path, ChildSpec("Peer", Drain), task_child("Other")) as tree:
        for _ in range(40):
            data = bytearray(b"".join(chance.choices(valid, k=4)))
            for _ in range(3):
                chance.choice(mutate)(data)
            async with raw_guest(path, ack=chance.random() < 0.7) as guest:
                await guest.send_bytes(bytes(data))
            await until_away(tree)
            assert await tree.ref("Other").call(Add(1, 1)) == 2
        assert tree.introspection.state("Peer").incarnation == 1
