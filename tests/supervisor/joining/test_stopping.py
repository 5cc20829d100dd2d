"""The tree asks its guests to stop, and cuts off who does not: nobody waits longer, and nobody is killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import anyio
import pytest

from protocol.client import NAME, Failed
from protocol.join import join
from protocol.wire import Code
from supervisor import (
    ChildSpec,
    ConnectionLost,
    StopIncomplete,
    Stopping,
    SupervisorSpec,
    joinable,
    open_guest,
    open_tree,
)
from supervisor.dynamic import dynamic_supervisor
from supervisor.testing import EventLog, Gate, GatedActor, eventually
from tests.supervisor.helpers import Counter
from tests.supervisor.joining.house import door, guest_program, status, tree_at, until_away, until_joined
from tests.supervisor.process_actors import Add, BeatFor, Boom, Downs, Note, Noted, Sleep, Watch
from tests.supervisor.processes import runs, task_child

pytestmark = pytest.mark.anyio


async def test_the_stop_of_the_tree_finishes_the_message_in_hand_and_ends_the_guest(path: Path, loop: str) -> None:
    with guest_program(path, loop) as program:
        async with tree_at(path) as tree:
            log = EventLog(tree.stream, ["steps", "lifecycle"])
            await until_joined(tree)
            in_hand = tree.ref("Guest").request(Sleep(0.3), timeout=5)
            await log.wait_for(sleeps=0.3)
        await in_hand
        assert "stopped" in log.topic("steps")[-1]
        assert log.read(event="exited", actor="Guest")[0]["reason"] == "shutdown"
        assert await program.ended() == "shutdown"
        assert program.process.returncode == 0


@pytest.mark.parametrize("order", ["guest first", "door first"])
async def test_it_is_asked_wherever_the_control_socket_stands(path: Path, order: str) -> None:
    children = [joinable("Guest"), door(path)]
    with guest_program(path) as program:
        async with open_tree(SupervisorSpec("root", children if order == "guest first" else children[::-1])) as tree:
            await until_joined(tree)
        assert await program.ended() == "shutdown"


async def test_a_stopped_process_does_not_hold_up_the_stop_and_is_not_killed(path: Path, loop: str) -> None:
    with guest_program(path, loop) as program:
        async with tree_at(path, place=joinable("Guest", shutdown=0.5)) as tree:
            log = EventLog(tree.stream)
            await until_joined(tree)
            program.signal(signal.SIGSTOP)
            begun = time.monotonic()
        assert 0.5 <= time.monotonic() - begun < 3.0
        (overdue,) = log.read(event="overdue", actor="Guest")
        assert "State:" in overdue["stack"]
        assert log.read(event="exited", actor="Guest")[0]["reason"] == "killed"
        assert runs(program.pid)
        program.signal(signal.SIGCONT)
        assert await program.ended() in ("killed", "shutdown")  # it was told to stop, and reads that now
        assert program.process.returncode == 0


async def test_who_cleans_up_for_too_long_is_cut_off(path: Path, loop: str) -> None:
    with guest_program(path, loop, stop_for=60.0) as program:
        async with tree_at(path, place=joinable("Guest", shutdown=0.3)) as tree:
            await until_joined(tree)
            with anyio.fail_after(5):
                await tree.supervisor("root").terminate_child("Guest")
        assert await program.ended() == "killed"  # its actor was cancelled when its link had ended


async def test_a_leaving_guest_has_its_time_and_no_more(path: Path) -> None:
    class Slow(Counter):
        async def on_stop(self, reason: object) -> None:
            await anyio.sleep(60)

    async with tree_at(path, place=joinable("Guest", shutdown=0.3)) as tree:
        begun = time.monotonic()
        async with open_guest(path, "Guest", Slow) as guest:
            pass
        assert time.monotonic() - begun < 5
        assert str(await guest.wait()) == "killed"
        await until_away(tree)


async def test_nobody_joins_in_the_middle_of_a_stop(path: Path) -> None:
    gate = Gate()
    children = [joinable("Guest"), door(path), ChildSpec("Last", lambda: GatedActor(gate))]
    with guest_program(path) as program:
        async with open_tree(SupervisorSpec("root", [SupervisorSpec("below", children)])) as tree:
            await until_joined(tree)
            program.signal(signal.SIGKILL)
            await until_away(tree)
            gate.hold_stop()
            tree.request_shutdown("enough")
            await eventually(lambda: bool(gate.stops))
            with pytest.raises(Failed) as failed:
                await join(path, "Guest", NAME, 5)
            assert failed.value.code == Code.STOPPING
            gate.stop_gate.set()
            await tree.wait()


async def test_who_joins_just_before_the_stop_is_cut_off(path: Path) -> None:
    """It has not acked, so there is nothing to ask."""
    async with tree_at(path) as tree:
        log = EventLog(tree.stream)
        link = await join(path, "Guest", NAME, 5)
        await eventually(lambda: status(tree) == "starting")
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    assert [entry["actor"] for entry in log.read(event="exited")][:2] == ["ControlSocket", "Guest"]
    link.close()


async def test_one_that_is_cut_off_without_being_asked_knows_that_it_was_to_stop(path: Path, loop: str) -> None:
    with guest_program(path, loop, stop_for=60.0) as program:
        async with tree_at(path) as tree:
            await until_joined(tree)
            tree.shorten_deadline(0)
        assert await program.ended() in ("shutdown", "killed")
        assert program.process.returncode == 0


async def test_dynamic_places_are_closed_all_at_once(path: Path) -> None:
    async with open_tree(SupervisorSpec("root", [dynamic_supervisor("pool"), door(path)])) as tree:
        pool = tree.supervisor("pool")
        for name in ("A", "B", "away"):
            await pool.start_child(joinable(name))
        async with open_guest(path, "A", Counter) as a, open_guest(path, "B", Counter) as b:
            await until_joined(tree, name="A")
            await until_joined(tree, name="B")
            await tree.supervisor("root").terminate_child("pool")
            for guest in (a, b):
                assert str(await guest.wait()) == "shutdown: terminated on request"
        with pytest.raises(Failed) as failed:
            await join(path, "A", NAME, 5)
        assert failed.value.code == Code.UNKNOWN_ACTOR


async def test_when_its_supervisor_is_restarted_it_joins_again_and_keeps_its_casts(path: Path, loop: str) -> None:
    below = SupervisorSpec("below", [task_child("Peer"), joinable("Guest")], intensity=0)
    async with open_tree(SupervisorSpec("root", [below, door(path)])) as tree:
        with guest_program(path, loop):
            await until_joined(tree)
            tree.ref("Peer").cast(Boom())  # one restart too many
            await eventually(lambda: tree.introspection.state("below").incarnation == 2)
            tree.ref("Guest").cast(Note(5))
            await until_joined(tree, 2)
            assert await tree.ref("Guest").call(Noted()) == [5]


async def test_a_guest_that_does_not_end_is_named_with_its_stack(path: Path) -> None:
    release = anyio.Event()

    class Stubborn(Counter):
        async def on_stop(self, reason: object) -> None:
            with anyio.CancelScope(shield=True):
                await release.wait()

    async with tree_at(path, place=joinable("Guest", shutdown=0.1)) as tree:
        with pytest.raises(StopIncomplete) as incomplete:
            async with open_guest(path, "Guest", Stubborn) as guest:
                pass
        (stuck,) = incomplete.value.stuck
        assert stuck.name == "Guest"
        assert "release.wait" in stuck.stack
        await until_away(tree, within=5)  # which does not wait for it
        release.set()
        await guest.wait()


async def test_calls_fail_at_once_with_the_stop(path: Path) -> None:
    async with tree_at(path, place=joinable("Guest", shutdown=0.5)) as tree:
        log = EventLog(tree.stream, ["steps"])
        with guest_program(path):
            await until_joined(tree)
            guest = tree.ref("Guest")
            in_hand = guest.request(Sleep(60), timeout=60)
            await log.wait_for(sleeps=60)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tree.supervisor("root").terminate_child, "Guest")
                await eventually(lambda: status(tree) == "stopping")
                with pytest.raises(Stopping):
                    await guest.call(Add(1, 1))
                with anyio.fail_after(5), pytest.raises((Stopping, ConnectionLost)):
                    await in_hand


# ---------------------------------------------------------------- liveness


async def test_a_stopped_process_is_found_by_its_silence_and_joins_again_when_it_goes_on(path: Path, loop: str) -> None:
    async with tree_at(path, task_child("Watcher"), place=joinable("Guest", liveness=0.5)) as tree:
        tree.ref("Watcher").cast(Watch("Guest"))
        with guest_program(path, loop) as program:
            await until_joined(tree)
            tree.ref("Guest").cast(BeatFor(60, 0.5))
            assert await tree.ref("Guest").call(Noted()) == []
            program.signal(signal.SIGSTOP)
            tree.ref("Guest").cast(Note(1))
            await until_away(tree)
            assert await tree.ref("Watcher").call(Downs()) == [
                "Guest#1: timeout: no progress for 0.5 s in phase 'beating'"
            ]
            assert runs(program.pid)
            program.signal(signal.SIGCONT)
            await until_joined(tree, 2)
            tree.ref("Guest").cast(BeatFor(60, 0.5))
            assert await tree.ref("Guest").call(Noted()) == [1]
