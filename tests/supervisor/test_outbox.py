"""The outgoing side of a link is bounded, keeps order, and waits for nobody."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import anyio
import msgspec
import pytest

from protocol.framing import FrameDecoder
from supervisor.link_protocol import Beat, Frame, Publish, Taken
from supervisor.outbox import FrameTooLarge, Outbox

pytestmark = pytest.mark.anyio

Pair = tuple[Outbox, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        outbox = Outbox(ours, bound=100_000)
        yield outbox, theirs
        outbox.close()


def big(number: int) -> Frame:
    return Publish("steps", {"number": number, "filling": "x" * 10_000})


def read(theirs: socket.socket, count: int) -> list[dict[str, object]]:
    theirs.settimeout(5)
    decoder = FrameDecoder()
    found: list[dict[str, object]] = []
    while len(found) < count:
        found += [msgspec.msgpack.decode(payload) for payload in decoder.feed(theirs.recv(1 << 16))]
    return found


def test_what_is_put_has_left_before_put_returns(pair: Pair) -> None:
    outbox, theirs = pair
    assert outbox.put(Taken(1, "Note"))
    theirs.setblocking(False)
    assert read(theirs, 1) == [{"type": "taken", "letter": 1, "kind": "Note"}]


def test_a_peer_that_reads_nothing_fills_it_and_is_not_waited_for(pair: Pair) -> None:
    outbox, _ = pair
    put = 0
    while outbox.put(big(put), must=False):
        put += 1
        assert put < 1000, "it was never full"
    assert outbox.full
    assert outbox.put(Taken(1, "Note")), "an answer is taken beyond the bound"


async def test_what_waits_leaves_in_order_once_the_peer_reads(pair: Pair) -> None:
    outbox, theirs = pair
    put = 0
    while outbox.put(big(put), must=False):
        put += 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.drain)
        received = await anyio.to_thread.run_sync(read, theirs, put)
        await outbox.flush(5)
        tasks.cancel_scope.cancel()
    assert [frame["data"]["number"] for frame in received] == list(range(put))  # type: ignore[index]
    assert not outbox.full


async def test_flush_gives_up_in_time(pair: Pair) -> None:
    outbox, _ = pair
    while outbox.put(big(0), must=False):
        pass
    with anyio.fail_after(2):
        await outbox.flush(0.1)


async def test_threads_may_put_at_the_same_time(pair: Pair) -> None:
    outbox, theirs = pair

    def beat(name: str) -> None:
        for _ in range(200):
            outbox.put(Beat(name, None))

    threads = [threading.Thread(target=beat, args=(str(number),)) for number in range(4)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.drain)
        for thread in threads:
            thread.start()
        frames = await anyio.to_thread.run_sync(read, theirs, 800)
        tasks.cancel_scope.cancel()
    for thread in threads:
        thread.join()
    assert sorted(frame["phase"] for frame in frames) == sorted("0123" * 200)  # type: ignore[type-var]


def test_a_frame_larger_than_a_frame_may_be_is_refused_and_nothing_is_sent(pair: Pair) -> None:
    outbox, theirs = pair
    with pytest.raises(FrameTooLarge):
        outbox.put(Publish("steps", {"filling": "x" * (17 << 20)}))
    outbox.put(Taken(2, "Note"))
    assert read(theirs, 1)[0]["letter"] == 2


def test_nothing_is_taken_for_a_peer_that_is_gone(pair: Pair) -> None:
    outbox, theirs = pair
    theirs.close()
    assert not outbox.put(Taken(1, "Note"))
    assert not outbox.put(Taken(2, "Note"))
