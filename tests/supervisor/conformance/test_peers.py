"""Monitors, links and the event stream, between children of either kind."""

from __future__ import annotations

import anyio
import pytest

from supervisor.testing import EventLog
from tests.supervisor.conformance.kit import REASONS, How, Kind, downs_of, end
from tests.supervisor.process_actors import Announce, Boom, LinkTo, Noted, Quit, Watch
from tests.supervisor.processes import next_life, task_child, tree_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("other", ["watched", "watching", "neither"])
async def test_a_monitor_tells_each_end_with_its_incarnation(kind: Kind, other: str) -> None:
    """One of the two, or neither, is a task in any case."""
    watcher_spec = task_child("Watcher") if other == "watching" else kind.child("Watcher")
    watched_spec = task_child("Worker") if other == "watched" else kind.child()
    async with tree_of(watcher_spec, watched_spec) as tree:
        watcher, log = tree.ref("Watcher"), EventLog(tree.stream)
        watcher.cast(Watch("Worker"))
        await watcher.call(Noted())
        ends: tuple[How, ...] = ("crash", "normal", "shutdown")
        for life, how in enumerate(ends, start=1):
            end(tree, "Worker", how)
            await log.wait_for(event="started", actor="Worker", incarnation=life + 1)
        expected = [f"Worker#{life}: {REASONS[how]}" for life, how in enumerate(ends, start=1)]
        assert await downs_of(watcher, 3) == expected


async def test_a_monitor_on_one_that_has_ended_or_never_was_tells_at_once(kind: Kind) -> None:
    async with tree_of(kind.child("Watcher"), kind.child("gone")) as tree:
        watcher = tree.ref("Watcher")
        await tree.supervisor("root").terminate_child("gone")
        watcher.cast(Watch("gone"))
        watcher.cast(Watch("Nobody"))
        gone, nobody = await downs_of(watcher, 2)
        assert gone.startswith("gone#1: shutdown")
        assert nobody == "Nobody#0: shutdown: not running"


async def test_a_monitor_ends_with_its_owner(kind: Kind) -> None:
    async with tree_of(kind.child("Watcher"), kind.child()) as tree:
        watcher = tree.ref("Watcher")
        watcher.cast(Watch("Worker"))
        watcher.cast(Boom())
        await next_life(watcher, 1)
        tree.ref("Worker").cast(Boom())
        await next_life(tree.ref("Worker"), 1)
        watcher.cast(Watch("Nobody"))  # what it would have been told of the other has been by then
        assert await downs_of(watcher, 1) == ["Nobody#0: shutdown: not running"]


@pytest.mark.parametrize("peer", ["a task", "of its kind"])
@pytest.mark.parametrize("falls", ["first", "second"])
async def test_linked_actors_go_down_together(kind: Kind, falls: str, peer: str) -> None:
    async with tree_of(task_child("first") if peer == "a task" else kind.child("first"), kind.child("second")) as tree:
        tree.ref("second").cast(LinkTo("first"))
        await tree.ref("second").call(Noted())
        end(tree, falls, "crash")
        for name in ("first", "second"):
            assert (await next_life(tree.ref(name), 1))["incarnation"] == 2


async def test_a_normal_end_takes_no_linked_peer_down(kind: Kind) -> None:
    async with tree_of(kind.child("first"), kind.child("second")) as tree:
        tree.ref("second").cast(LinkTo("first"))
        await tree.ref("second").call(Noted())
        tree.ref("first").cast(Quit())
        await next_life(tree.ref("first"), 1)
        tree.ref("first").cast(Boom())  # and the link is over with the incarnation
        await next_life(tree.ref("first"), 2)
        assert (await next_life(tree.ref("second"), 0))["incarnation"] == 1


async def test_a_link_to_one_that_has_ended_for_good_brings_it_down(kind: Kind) -> None:
    async with tree_of(kind.child(restart="temporary")) as tree:
        log = EventLog(tree.stream)
        tree.ref("Worker").cast(LinkTo("Nobody"))
        assert (await log.wait_for(event="exited", actor="Worker"))["reason"] == "shutdown: not running"


async def test_it_publishes_to_the_stream(kind: Kind) -> None:
    async with tree_of(kind.child()) as tree:
        with tree.stream.subscribe(["steps"]) as steps, anyio.fail_after(5):
            tree.ref("Worker").cast(Announce("steps", "one"))
            assert (await anext(aiter(steps))).data["text"] == "one"
