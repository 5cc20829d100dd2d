"""Who may join, and when: names, races, places that are closed, and starts that fail."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from protocol.client import NAME, Failed
from protocol.join import join
from protocol.wire import Code
from supervisor import (
    ChildSpec,
    ChildStartFailed,
    CoolDown,
    Mailbox,
    NotRunning,
    SpecError,
    SupervisorSpec,
    joinable,
    open_guest,
    open_tree,
    serve_guest,
)
from supervisor.spec import GuestPlace
from supervisor.testing import EventLog, Gate, GatedActor, eventually
from tests.supervisor.helpers import Counter, GetAll, Incarnation, Put
from tests.supervisor.joining.house import door, guest_program, status, tree_at, until_away, until_joined
from tests.supervisor.process_actors import Add, Boom, Noted, Worker
from tests.supervisor.processes import task_child

pytestmark = pytest.mark.anyio


async def refusal(path: Path, name: str) -> Failed:
    with pytest.raises(Failed) as failed:
        await join(path, name, NAME, 5)
    return failed.value


async def test_only_a_joinable_name_can_be_joined(path: Path) -> None:
    async with tree_at(path, task_child("Peer")):
        unknown = await refusal(path, "Nobody")
        assert (unknown.code, unknown.message) == (
            Code.UNKNOWN_ACTOR,
            "nobody here is called 'Nobody'; who joins may be: Guest",
        )
        for name in ("Peer", "ControlSocket", "root"):
            assert (await refusal(path, name)).code == Code.NOT_JOINABLE
        for name in ("Nobody", "Peer"):
            with pytest.raises(Failed):
                await serve_guest(path, name, Counter)


async def test_two_race_for_one_name_and_one_wins(path: Path) -> None:
    async with tree_at(path) as tree:
        outcomes: list[Any] = []

        async def race() -> None:
            try:
                link = await join(path, "Guest", NAME, 5)
            except Failed as error:
                outcomes.append(error.code)
            else:
                outcomes.append(link)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(race)
        assert sorted(one for one in outcomes if isinstance(one, str)) == [Code.TAKEN] * 4
        (winner,) = (one for one in outcomes if not isinstance(one, str))
        winner.close()
        await until_away(tree)
        (await join(path, "Guest", NAME, 5)).close()


async def test_who_comes_second_is_told_and_the_first_is_not_disturbed(path: Path, loop: str) -> None:
    async with tree_at(path) as tree:
        with guest_program(path, loop) as first:
            await until_joined(tree)
            with pytest.raises(Failed) as failed:
                await serve_guest(path, "Guest", Counter)
            assert (failed.value.code, str(first.pid) in failed.value.message) == (Code.TAKEN, True)
            with guest_program(path, loop) as second:
                assert "served by another process" in await second.ended()
            assert await tree.ref("Guest").call(Add(1, 1)) == 2
            assert tree.introspection.state("Guest").incarnation == 1


async def test_a_name_that_was_taken_meanwhile_is_waited_for(path: Path) -> None:
    """One that had it before, and lost its link, does not give up: it is there when the other goes."""
    children = [door(path), joinable("Guest")]
    async with open_tree(SupervisorSpec("root", children, strategy="rest_for_one")) as tree:
        async with open_guest(path, "Guest", Counter) as guest:
            other = None
            with anyio.fail_after(20):
                while other is None:
                    await tree.introspection.restart("ControlSocket")
                    try:
                        other = await join(path, "Guest", NAME, 5)
                    except Failed as error:
                        assert error.code == Code.TAKEN
            await eventually(lambda: tree.introspection.state("Guest").incarnation > guest.incarnation)
            other.close()
            await until_joined(tree, guest.incarnation + 1)
            assert await tree.ref("Guest").call(Incarnation()) == guest.incarnation


async def test_a_place_of_a_supervisor_that_does_not_run_is_closed_and_waited_for(path: Path) -> None:
    gate = Gate()
    gate.fail_always(OSError("not yet"))
    below = SupervisorSpec("below", [ChildSpec("first", lambda: GatedActor(gate)), joinable("Guest")])
    spec = SupervisorSpec("root", [door(path), below], on_give_up=CoolDown(0.1))
    async with open_tree(spec) as tree:
        assert (await refusal(path, "Guest")).code in (Code.NOT_RUNNING, Code.RESTARTING)
        with guest_program(path):
            await eventually(lambda: gate.starts > 3)
            gate.fail_always(None)
            await until_joined(tree)
            assert await tree.ref("Guest").call(Add(1, 1)) == 2


async def test_a_place_that_was_closed_by_hand_is_closed_until_it_is_opened(path: Path) -> None:
    async with tree_at(path) as tree:
        supervisor = tree.supervisor("root")
        async with open_guest(path, "Guest", Counter) as guest:
            await supervisor.terminate_child("Guest")
            assert str(await guest.wait()) == "shutdown: terminated on request"
        assert (await refusal(path, "Guest")).code == Code.NOT_RUNNING
        with pytest.raises(NotRunning):
            await tree.ref("Guest").call(GetAll())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_guest, path, "Guest", Counter)
            await supervisor.restart_child("Guest")
            await until_joined(tree, 2)
            tasks.cancel_scope.cancel()


async def test_a_place_may_be_made_at_run_time(path: Path) -> None:
    async with tree_at(path) as tree:
        ref = await tree.supervisor("root").start_child(joinable("Late"))
        ref.cast(Put(1))
        async with open_guest(path, "Late", Counter):
            assert await ref.call(GetAll()) == [1]
        await until_away(tree, "Late")
        await tree.supervisor("root").delete_child("Late")
        assert (await refusal(path, "Late")).code == Code.UNKNOWN_ACTOR


# ---------------------------------------------------------------- its supervisor does not miss it


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_group_does_not_wait_for_one_that_is_away(path: Path, strategy: Any) -> None:
    children = [task_child("First"), joinable("Guest"), task_child("Last"), door(path)]
    async with open_tree(SupervisorSpec("root", children, strategy=strategy)) as tree:
        assert status(tree) == "absent"
        tree.ref("Guest").cast(Put(1))
        tree.ref("First").cast(Boom())
        await eventually(lambda: tree.introspection.state("Last").incarnation == 2)
        await tree.ref("Last").call(Noted())
        assert status(tree) == "absent"
        async with open_guest(path, "Guest", Counter):
            assert await tree.ref("Guest").call(GetAll()) == [1]
            tree.ref("Guest").cast(Put(2))


async def test_its_ends_cost_no_restart_and_move_no_sibling(path: Path) -> None:
    children = [joinable("Guest"), task_child("Last"), door(path)]
    async with open_tree(SupervisorSpec("root", children, strategy="one_for_all", intensity=0)) as tree:
        for joins in range(1, 6):
            (await join(path, "Guest", NAME, 5)).close()
            await eventually(lambda: tree.introspection.state("Guest").incarnation == joins)  # noqa: B023
            await until_away(tree)
        assert tree.introspection.state("Last").incarnation == 1
        assert not tree.stopping


# ---------------------------------------------------------------- starts


async def test_one_that_fails_to_start_says_so_on_both_sides(path: Path) -> None:
    async with tree_at(path) as tree:
        log = EventLog(tree.stream)
        with pytest.raises(ChildStartFailed, match="the start"):
            await serve_guest(path, "Guest", partial(Worker, fail="the start"))
        await until_away(tree)
        (report,) = log.topic("crashes")
        assert (report["reason"], report["will_restart"]) == ("start failed: ValueError: the start", False)
        with pytest.raises(ChildStartFailed, match="which is no Actor"):
            await serve_guest(path, "Guest", lambda: "nonsense")  # type: ignore[arg-type, return-value]
        await until_away(tree)


async def test_one_that_starts_too_slowly_is_cut_off_and_the_place_is_free(path: Path, loop: str) -> None:
    async with tree_at(path, place=joinable("Guest", start_timeout=0.3)) as tree:
        log = EventLog(tree.stream)
        with guest_program(path, loop, start_for=60):
            await log.wait_for(event="exited", actor="Guest", within=20)
        (report, *_) = log.topic("crashes")
        assert report["reason"] == "start failed: StartTimeout: no ack within 0.3 s of joining"
        await until_away(tree)
        async with open_guest(path, "Guest", Counter):
            assert await tree.ref("Guest").call(GetAll()) == []


async def test_calls_wait_for_the_ack_of_one_that_joins(path: Path) -> None:
    gate = Gate()
    gate.shut()

    class Slow(Counter):
        async def on_start(self) -> None:
            await gate.pass_start()

    async with tree_at(path) as tree:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_guest, path, "Guest", Slow)
            await eventually(lambda: gate.starts == 1)
            assert status(tree) == "starting"
            pending = tree.ref("Guest").request(GetAll(), timeout=10)
            gate.open()
            assert await pending == []
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "senseless",
    [
        {"start": Counter},
        {"restart": "transient"},
        {"shutdown": "brutal_kill"},
        {"on_give_up": CoolDown(1)},
        {"significant": True},
        {"shutdown": -1.0},
        {"liveness": 0.0},
    ],
)
def test_a_senseless_place_is_refused(senseless: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        ChildSpec("Guest", **{"start": GuestPlace(Mailbox()), "isolation": "guest", **senseless})


def test_a_place_is_no_start_of_another_kind() -> None:
    for isolation in ("task", "process"):
        with pytest.raises(SpecError):
            ChildSpec("Guest", GuestPlace(), isolation=isolation)  # type: ignore[arg-type]
