"""The moment at which a link is cut is one and the same at both of its ends: what is handled before it is not again."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest

from supervisor import joinable
from supervisor import link_protocol as wire
from supervisor.reasons import Crash, Normal
from supervisor.testing import eventually
from tests.supervisor.joining.house import guest_program, tree_at, until_away, until_joined
from tests.supervisor.joining.raw import raw_guest
from tests.supervisor.joining.strangers import Jot
from tests.supervisor.process_actors import BeatFor, Block, Noted
from tests.supervisor.processes import until_sync

pytestmark = pytest.mark.anyio


async def test_letters_that_lay_unread_at_one_that_was_cut_off_are_handled_once(
    path: Path, loop: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    async with tree_at(path, place=joinable("Guest", liveness=0.5)) as tree:
        with guest_program(path, loop) as program:
            await until_joined(tree)
            guest = tree.ref("Guest")
            guest.cast(BeatFor(60, 0.5))
            assert await guest.call(Noted()) == []
            program.signal(signal.SIGSTOP)
            for number in range(5):
                guest.cast(Jot(str(notes), number))
            await until_away(tree)
            program.signal(signal.SIGCONT)
            await until_joined(tree, 2)
            guest.cast(BeatFor(60, 0.5))
            assert await guest.call(Noted()) == []
        assert notes.read_text().split() == ["0", "1", "2", "3", "4"]


async def test_letters_that_were_handled_unheard_before_the_cut_are_handled_once(
    path: Path, loop: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.touch()

    def written() -> list[str]:
        return notes.read_text().split()

    async with tree_at(path) as tree:
        with guest_program(path, loop):
            await until_joined(tree)
            guest = tree.ref("Guest")
            guest.cast(Block(0.3))
            for number in range(5):
                guest.cast(Jot(str(notes), number))
            await eventually(lambda: not guest.cell.queue)  # they are on their way
            until_sync(lambda: len(written()) == 5)  # meanwhile nobody here hears what the guest says
            incarnation = tree._runtime.children["Guest"].incarnation
            assert incarnation is not None
            incarnation.kill(Crash("Test", "cut off in this very moment"))
            await until_joined(tree, 2)
            assert await guest.call(Noted()) == []
        assert written() == ["0", "1", "2", "3", "4"]


async def test_one_that_says_again_and_again_that_it_ends_gets_no_more_time_for_it(path: Path) -> None:
    async with tree_at(path) as tree, raw_guest(path) as guest:
        await until_joined(tree)
        await guest.send(wire.Ending(Normal()), wire.Ending(Normal()))
        with anyio.fail_after(3):
            await guest.cut()
        await until_away(tree)
        assert str(tree.introspection.state("Guest").last_exit) == "normal"
