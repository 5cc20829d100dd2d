"""A guest joins again by itself, whatever became of its link; and not where it was told to stop."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
import pytest

from protocol.aclient import connect
from protocol.messages.system import GetActor
from supervisor import Actor, Backoff, Mailbox, SpecError, SupervisorSpec, joinable, open_guest, open_tree, serve_guest
from supervisor.reasons import Reason
from supervisor.testing import eventually
from tests.supervisor.helpers import Counter, GetAll, Put
from tests.supervisor.joining.house import ROOT, door, guest_program, status, tree_at, until_away, until_joined
from tests.supervisor.joining.strangers import Jot
from tests.supervisor.process_actors import Add, Downs, Hold, Let, Note, Noted, Watch, WhoAreYou, Worker
from tests.supervisor.processes import task_child

pytestmark = pytest.mark.anyio

# ---------------------------------------------------------------- ControlSocket


async def test_a_restart_of_the_control_socket_is_not_even_noticed(path: Path, loop: str) -> None:
    """The link is the guest's own: ControlSocket has let it in, and has no part in it."""
    async with tree_at(path) as tree:
        with guest_program(path, loop):
            await until_joined(tree)
            guest = tree.ref("Guest")
            in_hand = guest.request(Hold(), timeout=20)
            await tree.introspection.restart("ControlSocket")
            assert tree.introspection.state("ControlSocket").incarnation == 2
            guest.cast(Let("through all of it"))
            assert await in_hand == "through all of it"
            assert (await guest.call(WhoAreYou()))["incarnation"] == 1


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_it_joins_again_after_a_restart_of_the_control_socket_that_takes_it_along(
    path: Path, loop: str, strategy: Literal["rest_for_one", "one_for_all"]
) -> None:
    spec = SupervisorSpec("root", [door(path), joinable("Guest")], strategy=strategy)
    async with open_tree(spec) as tree:
        with guest_program(path, loop) as program:
            await until_joined(tree)
            guest = tree.ref("Guest")
            for restarts in (1, 2):
                guest.cast(Note(restarts))
                assert await guest.call(Noted()) == [restarts]
                await tree.introspection.restart("ControlSocket")
                await until_joined(tree, restarts + 1)
                assert await guest.call(Noted()) == []
                assert tree.introspection.state("Guest").last_exit == "shutdown: ControlSocket is restarted"
                assert tree.introspection.state("Guest").restarts == restarts
            assert (await guest.call(WhoAreYou()))["pid"] == program.pid


async def test_it_joins_again_after_a_restart_by_hand(path: Path, loop: str) -> None:
    async with tree_at(path) as tree:
        with guest_program(path, loop):
            await until_joined(tree)
            await tree.introspection.restart("Guest")
            tree.ref("Guest").cast(Note(7))
            await until_joined(tree, 2)
            assert await tree.ref("Guest").call(Noted()) == [7]


# ---------------------------------------------------------------- the program of the tree


@asynccontextmanager
async def tree_program(path: Path, loop: str) -> AsyncIterator[subprocess.Popen[str]]:
    """A tree in a process of its own, which is killed at the end of the block."""
    words = [sys.executable, "-P", "-m", "tests.supervisor.joining.tree_program", str(path), loop]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await anyio.to_thread.run_sync(process.stdout.readline) == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


async def answer_of_guest(path: Path) -> int:
    """Wait until a guest runs there, and ask it."""
    async with connect(path) as client:
        with anyio.fail_after(20):
            while (await client.call("ControlSocket", GetActor("Guest"))).status != "running":
                await anyio.sleep(0.02)
        return await client.call("Guest", Add(40, 2))


@pytest.mark.parametrize("guest_loop", ["asyncio", "trio"])
async def test_it_joins_again_when_the_program_of_the_tree_was_killed_and_started_again(
    path: Path, loop: str, guest_loop: str
) -> None:
    with guest_program(path, guest_loop) as program:  # it waits for a tree that is not there yet
        for _ in range(2):
            async with tree_program(path, loop):
                assert await answer_of_guest(path) == 42
        assert program.process.poll() is None


async def test_a_clean_end_of_the_tree_ends_it(path: Path, loop: str) -> None:
    with guest_program(path, loop) as program:
        async with tree_program(path, loop) as tree:
            assert await answer_of_guest(path) == 42
            assert tree.stdin is not None
            tree.stdin.write("stop\n")
            tree.stdin.flush()
            assert await program.ended() == "shutdown"
        assert program.process.returncode == 0


async def test_a_permanent_one_waits_for_the_next_tree_also_when_it_was_told_to_stop(path: Path) -> None:
    with guest_program(path, restart="permanent") as program:
        for _ in range(2):
            async with tree_program(path, "asyncio") as tree:
                assert await answer_of_guest(path) == 42
                assert tree.stdin is not None
                tree.stdin.write("stop\n")
                tree.stdin.flush()
                await anyio.to_thread.run_sync(tree.wait)
        assert program.process.poll() is None


async def test_a_temporary_one_lives_once(path: Path) -> None:
    with guest_program(path, restart="temporary") as program:
        async with tree_program(path, "asyncio"):
            assert await answer_of_guest(path) == 42
        assert await program.ended() == "shutdown: the link to the tree has ended"


class Ending(Worker):
    """Remembers how it ended, outside of itself."""

    def __init__(self, ends: list[Reason]) -> None:
        super().__init__()
        self.ends = ends

    async def on_stop(self, reason: Reason) -> None:
        self.ends.append(reason)
        await super().on_stop(reason)


async def test_when_the_link_ends_the_actor_ends_before_another_joins(path: Path) -> None:
    ends: list[Reason] = []
    async with open_tree(SupervisorSpec("root", [joinable("Guest", liveness=0.2), door(path)])) as tree:
        async with open_guest(path, "Guest", partial(Ending, ends)) as guest:  # it never beats
            await until_joined(tree, 3)
            assert guest.incarnation >= 3
            assert {str(end) for end in ends} == {"shutdown: the link to the tree has ended"}
            assert len(ends) >= 2
            assert str(tree.introspection.state("Guest").last_exit).startswith("timeout: no progress")


class Caller(Actor):
    """Asks an actor of the tree for something that it does not answer."""

    def __init__(self, failures: list[str]) -> None:
        self.failures = failures

    async def on_start(self) -> None:
        self.context.spawn(self._ask)

    async def _ask(self) -> None:
        try:
            await self.context.ref("Peer").call(Hold(), timeout=60)
        except Exception as error:
            self.failures.append(type(error).__name__)
            raise


async def test_what_it_waits_for_in_the_tree_fails_at_once_with_the_link(path: Path) -> None:
    failures: list[str] = []
    async with tree_at(path, task_child("Peer"), place=joinable("Guest", liveness=0.3)) as tree:
        async with open_guest(path, "Guest", partial(Caller, failures)):
            await until_away(tree)
            with anyio.fail_after(5):
                while not failures:
                    await anyio.sleep(0.01)
            assert failures[0] == "ConnectionLost"


# ---------------------------------------------------------------- leaving


async def test_leaving_stops_the_actor_and_tells_the_tree(path: Path) -> None:
    ends: list[Reason] = []
    async with tree_at(path, task_child("Watcher")) as tree:
        tree.ref("Watcher").cast(Watch("Guest"))
        async with open_guest(path, "Guest", partial(Ending, ends)):
            assert await tree.ref("Guest").call(Add(1, 1)) == 2
        assert [str(end) for end in ends] == ["shutdown: the guest leaves"]
        await until_away(tree)
        assert await tree.ref("Watcher").call(Downs()) == ["Guest#1: shutdown: the guest leaves"]


async def test_a_cancelled_guest_stops_its_actor_first(path: Path) -> None:
    ends: list[Reason] = []
    async with tree_at(path) as tree:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_guest, path, "Guest", partial(Ending, ends))
            await until_joined(tree)
            tasks.cancel_scope.cancel()
        assert [str(end) for end in ends] == ["shutdown: the guest leaves"]
        await until_away(tree)


async def test_a_guest_that_waits_for_a_tree_can_be_cancelled(path: Path) -> None:
    with anyio.fail_after(5):
        with anyio.move_on_after(0.3):
            await serve_guest(path, "Guest", Counter)


async def test_the_error_of_the_block_is_kept(path: Path) -> None:
    async with tree_at(path) as tree:
        with pytest.raises(ZeroDivisionError):
            async with open_guest(path, "Guest", Counter):
                raise ZeroDivisionError
        await until_away(tree)


async def test_several_guests_of_one_program(path: Path) -> None:
    async with tree_at(path, joinable("Other")) as tree:
        async with open_guest(path, "Guest", Counter), open_guest(path, "Other", Counter):
            for name, value in (("Guest", 1), ("Other", 2)):
                tree.ref(name).cast(Put(value))
                assert await tree.ref(name).call(GetAll()) == [value]


async def test_joins_are_tried_with_growing_delays_and_not_for_ever_at_once(path: Path) -> None:
    path.parent.mkdir()
    tries = 0

    async def hang_up(listener: socket.socket) -> None:
        nonlocal tries
        while True:
            await anyio.wait_readable(listener)
            listener.accept()[0].close()
            tries += 1

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hang_up, listener)
            backoff = Backoff(first=0.1, factor=2, most=60, jitter=0)
            with anyio.move_on_after(1.0):
                await serve_guest(path, "Guest", Counter, backoff=backoff)
            tasks.cancel_scope.cancel()
    assert 2 <= tries <= 4  # at 0, 0.1, 0.3, 0.7 s


async def test_what_makes_no_sense_is_refused_before_anything_starts(path: Path) -> None:
    for name, restart in (("", "transient"), ("Guest", "sometimes")):
        with pytest.raises(SpecError):
            await serve_guest(path, name, Counter, restart=restart)  # type: ignore[arg-type]


async def test_a_killed_guest_that_is_started_again_joins_as_the_next_incarnation(path: Path, loop: str) -> None:
    async with tree_at(path) as tree:
        for joins in (1, 2, 3):
            with guest_program(path, loop) as program:
                await until_joined(tree, joins)
                assert (await tree.ref("Guest").call(WhoAreYou()))["incarnation"] == joins
                program.signal(signal.SIGKILL)
                await eventually(lambda: status(tree) == "absent", 2)


async def test_over_any_number_of_deaths_no_cast_is_handled_twice_and_at_most_the_one_in_hand_is_lost(
    path: Path, tmp_path: Path
) -> None:
    notes, deaths = tmp_path / "notes", 5
    notes.touch()
    numbers = itertools.count()

    def written() -> list[int]:
        return [int(line) for line in notes.read_text().splitlines()]

    async def tell() -> None:
        while True:
            await tree.ref("Guest").send(Jot(str(notes), next(numbers)))

    async with tree_at(path, place=joinable("Guest", mailbox=Mailbox(100))) as tree:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell)
            for death in range(deaths):
                with guest_program(path, ["asyncio", "trio"][death % 2]) as program:
                    await until_joined(tree, death + 1)
                    seen = len(written())
                    await eventually(lambda: len(written()) > seen + 50)  # noqa: B023
                    program.signal(signal.SIGKILL)
                    await until_away(tree)
            tasks.cancel_scope.cancel()
        with guest_program(path):
            await until_joined(tree, deaths + 1)
            await eventually(lambda: tree.introspection.state("Guest").mailbox == 0)
            assert await tree.ref("Guest").call(Noted()) == []  # behind all that waited
        found = written()
        assert found == sorted(set(found))
        assert len(found) >= found[-1] + 1 - deaths
        assert found[-1] >= next(numbers) - 2  # the sender was cancelled with one in its hand


def test_tree_and_guest_in_plain_asyncio_programs(path: Path) -> None:
    """Where callbacks of the loop run outside of everything that anyio knows."""

    async def main() -> None:
        async with tree_at(path) as tree:
            serving = asyncio.create_task(serve_guest(path, "Guest", Worker))
            await until_joined(tree)
            assert await tree.ref("Guest").call(Add(1, 2)) == 3
            assert tree.introspection.state("ControlSocket").incarnation == 1
            await tree.introspection.restart("Guest")
            await until_joined(tree, 2)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            await until_away(tree)

    asyncio.run(main())
