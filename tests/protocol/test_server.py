"""The socket server as a client meets it: hello, requests, failures, subscriptions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from protocol.framing import encode_frame
from tests.protocol.house import WHEN, House, Raw, hello, request, serving, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


async def test_welcome_says_who_serves(path: Path, encoding: Any) -> None:
    async with serving(path, House()), Raw(path, encoding) as client:
        welcome = await client.greet()
        assert (welcome["version"], welcome["pid"]) == (1, os.getpid())
        async with Raw(path, encoding) as other:
            assert (await other.greet())["instance"] == welcome["instance"]
    async with serving(path, House()), Raw(path, encoding) as client:
        assert (await client.greet())["instance"] != welcome["instance"]


async def test_a_request_is_answered_in_the_encoding_of_the_connection(path: Path, encoding: Any) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as client:
        await client.greet()
        await client.send(request("a1", {"type": "echo", "text": "ahoy"}, timeout=7))
        assert await client.receive() == {"type": "reply", "id": "a1", "body": "ahoy"}
        await client.send(request("a2", {"type": "get_when"}))
        when = (await client.receive())["body"]
        assert when == (WHEN if encoding == "msgpack" else "2026-11-23T03:00:00Z")
    assert house.timeouts[0] == 7
    assert {(peer.pid, peer.uid) for peer in house.peers} == {(os.getpid(), os.geteuid())}


async def test_hello_and_requests_may_come_in_one_piece_and_byte_by_byte(path: Path) -> None:
    data = b"".join(
        map(encode_frame, [hello(), *(request(str(i), {"type": "echo", "text": str(i)}) for i in range(50))])
    )
    async with serving(path, House()):
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            async with Raw(path, "msgpack") as client:
                for piece in pieces:
                    await client.send_bytes(piece)
                assert (await client.receive())["type"] == "welcome"
                assert [(await client.receive())["body"] for _ in range(50)] == [str(i) for i in range(50)]


async def test_answers_come_when_they_are_ready_whatever_the_order(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path) as client:
        await client.greet()
        await client.send(*(request(name, {"type": "hold", "name": name}) for name in "abc"))
        await until(lambda: len(house.held) == 3)
        for name in "cab":
            house.held[name].reply(name.upper())
        assert [(await client.receive())["body"] for _ in "abc"] == ["C", "A", "B"]
        house.held["a"].reply("too late")
        await client.send(request("d", {"type": "echo", "text": "d"}))
        assert (await client.receive())["body"] == "d"


@pytest.mark.parametrize(
    ("body", "to", "code"),
    [
        ({"type": "refuse"}, "House", "not_now"),
        ({"type": "echo", "text": "x"}, "Nobody", "unknown_actor"),
        ({"type": "nonsense"}, "House", "bad_message"),
        ({"type": "echo", "text": "x", "extra": 1}, "House", "bad_message"),
        ({"type": "echo"}, "House", "bad_message"),
        (17, "House", "bad_message"),
        ({"type": "get_odd"}, "House", "handler_failed"),
    ],
)
async def test_what_cannot_be_done_is_a_typed_failure_and_the_connection_goes_on(
    path: Path, encoding: Any, body: Any, to: str, code: str
) -> None:
    async with serving(path, House()), Raw(path, encoding) as client:
        await client.greet()
        await client.send(request("a1", body, to))
        failure = await client.receive()
        assert (failure["type"], failure["id"], failure["code"]) == ("error", "a1", code)
        assert failure["message"]
        await client.send(request("a2", {"type": "echo", "text": "still here"}))
        assert (await client.receive())["body"] == "still here"


@pytest.mark.parametrize(
    "envelope",
    [
        request("a1", {"type": "refuse"}) | {"extra": 1},
        request("a1", {"type": "refuse"}, timeout=-1),
        request("a1", {"type": "refuse"}, timeout=0),
        request("a1", {"type": "refuse"}) | {"timeout": None},
        {"type": "request", "id": "a1"},
        {"type": "unheard_of", "id": "a1"},
        {"type": "reply", "id": "a1", "body": None},
        {"id": "a1"},
    ],
)
async def test_a_malformed_envelope_is_a_typed_failure_with_its_id(path: Path, encoding: Any, envelope: Any) -> None:
    async with serving(path, House()), Raw(path, encoding) as client:
        await client.greet()
        await client.send(envelope)
        failure = await client.receive()
        assert (failure["type"], failure["id"], failure["code"]) == ("error", "a1", "bad_message")
        await client.send(request("a2", {"type": "echo", "text": "still here"}))
        assert (await client.receive())["body"] == "still here"


async def test_a_refusal_carries_its_detail(path: Path) -> None:
    async with serving(path, House()), Raw(path) as client:
        await client.greet()
        await client.send(request("a1", {"type": "refuse"}))
        failure = await client.receive()
        assert (failure["message"], failure["detail"]) == ("not while it rains", {"until": "noon"})


async def test_a_cast_is_delivered_and_not_answered(path: Path, encoding: Any) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as client:
        await client.greet()
        await client.send({"type": "cast", "to": "House", "body": {"type": "note", "text": "x"}})
        await client.send({"type": "cast", "to": "Nobody", "body": {"type": "note", "text": "x"}})
        failure = await client.receive()
        assert failure["code"] == "unknown_actor" and "id" not in failure
    assert house.notes == ["x"]


# ---------------------------------------------------------------- hello


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (hello(2, 3), "incompatible"),
        (hello(0, 0), "incompatible"),
        (hello(2, 1), "bad_hello"),
        (hello() | {"extra": 1}, "bad_hello"),
        (request("a1", {"type": "echo", "text": "x"}), "bad_hello"),
        ({"type": "what"}, "bad_hello"),
    ],
)
async def test_without_a_good_hello_there_is_an_error_and_a_close(
    path: Path, encoding: Any, first: Any, code: str
) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as client:
        await client.send(first, request("a1", {"type": "echo", "text": "x"}))
        assert (await client.receive())["code"] == code
        assert await client.closed()
    assert not house.asked


async def test_an_older_and_a_newer_client_agree_on_this_version(path: Path) -> None:
    async with serving(path, House()), Raw(path) as client:
        await client.send(hello(0, 9))
        assert (await client.receive())["version"] == 1


async def test_incompatible_says_which_side_is_old(path: Path) -> None:
    async with serving(path, House()):
        async with Raw(path) as newer:
            await newer.send(hello(2, 3))
            assert "update the daemon" in (await newer.receive())["message"]
        async with Raw(path) as older:
            await older.send(hello(0, 0))
            assert "update the client" in (await older.receive())["message"]


async def test_a_second_hello_is_refused_and_harmless(path: Path) -> None:
    async with serving(path, House()), Raw(path) as client:
        await client.greet()
        await client.send(hello())
        assert (await client.receive())["code"] == "bad_message"
        await client.send(request("a1", {"type": "echo", "text": "x"}))
        assert (await client.receive())["body"] == "x"


# ---------------------------------------------------------------- repeated requests


async def test_a_repeated_request_is_answered_and_not_done_again(path: Path, encoding: Any) -> None:
    house = House()
    async with serving(path, house):
        async with Raw(path, encoding) as client:
            await client.greet()
            await client.send(*[request("a1", {"type": "echo", "text": "x"})] * 2)
            assert [(await client.receive())["body"] for _ in range(2)] == ["x", "x"]
        async with Raw(path, encoding) as client:
            await client.greet()
            await client.send(request("a1", {"type": "echo", "text": "x"}))
            assert (await client.receive())["body"] == "x"
    assert house.asked["Echo"] == 1


async def test_who_comes_back_while_it_is_under_way_waits_along(path: Path) -> None:
    house = House()
    again = request("a1", {"type": "hold", "name": "h"})
    async with serving(path, house):
        async with Raw(path) as client:
            await client.greet()
            await client.send(again, again)
            await until(lambda: "h" in house.held)
        async with Raw(path) as client:
            await client.greet()
            await client.send(again, again, request("a2", {"type": "echo", "text": "x"}))
            assert (await client.receive())["id"] == "a2"
            house.held["h"].reply("held")
            assert [(await client.receive())["body"] for _ in range(2)] == ["held", "held"]
        async with Raw(path, "json") as client:
            await client.greet()
            await client.send(again)
            assert (await client.receive())["body"] == "held"
    assert house.asked["Hold"] == 1
    assert house.given_up == []


async def test_another_body_or_addressee_under_the_same_id_is_another_request(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path) as client:
        await client.greet()
        await client.send(
            request("a1", {"type": "echo", "text": "x"}),
            request("a1", {"type": "echo", "text": "y"}),
            request("a1", {"type": "echo", "text": "x"}, to="Nobody"),
        )
        assert (await client.receive())["body"] == "x"
        assert (await client.receive())["body"] == "y"
        assert (await client.receive())["code"] == "unknown_actor"


async def test_a_failure_that_did_nothing_is_tried_again_and_any_other_is_remembered(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path) as client:
        await client.greet()
        for code in ("restarting", "timed_out", "never asked"):
            await client.send(request("a1", {"type": "hold", "name": "h"}))
            if code != "never asked":
                await until(lambda: "h" in house.held)
                house.held.pop("h").fail(code, "as the test says")
            assert (await client.receive())["code"] == ("timed_out" if code == "never asked" else code)
    assert house.asked["Hold"] == 2


# ---------------------------------------------------------------- who goes away


async def test_a_request_whose_client_is_gone_is_given_up_after_the_time_to_come_back(path: Path) -> None:
    house = House()
    async with serving(path, house, retry_within=0.05):
        async with Raw(path) as client:
            await client.greet()
            await client.send(request("a1", {"type": "hold", "name": "h"}))
            await until(lambda: "h" in house.held)
            assert house.given_up == []
        await until(lambda: house.given_up == ["h"])
        house.held["h"].reply("nobody hears it")


async def test_what_is_left_behind_is_bounded_and_the_oldest_is_given_up_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.server.ABANDONED", 2)
    house = House()
    async with serving(path, house):
        for number in range(4):
            async with Raw(path) as client:
                await client.greet()
                await client.send(request(f"a{number}", {"type": "hold", "name": str(number)}))
                await until(lambda number=number: str(number) in house.held)
        await until(lambda: house.given_up == ["0", "1"])
    assert house.given_up == ["0", "1", "2", "3"], "and with the server all of it"


async def test_a_client_done_with_writing_still_gets_its_reply(path: Path, encoding: Any) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as client:
        await client.send(hello(), request("a1", {"type": "hold", "name": "h"}))
        client.socket.shutdown(1)
        assert (await client.receive())["type"] == "welcome"
        await until(lambda: "h" in house.held)
        house.held["h"].reply("late")
        assert (await client.receive())["body"] == "late"
        assert await client.closed()


async def test_a_stopping_server_tells_those_who_wait(path: Path, encoding: Any) -> None:
    house = House()
    async with anyio.create_task_group() as tasks:
        waiting = anyio.Event()

        async def wait_for_it() -> None:
            async with Raw(path, encoding) as client:
                await client.greet()
                await client.send(request("a1", {"type": "hold", "name": "h"}))
                await until(lambda: "h" in house.held)
                waiting.set()
                failure = await client.receive()
                assert (failure["id"], failure["code"]) == ("a1", "connection_lost")
                assert await client.closed()

        async with serving(path, house):
            tasks.start_soon(wait_for_it)
            await waiting.wait()
    assert house.given_up == ["h"]


# ---------------------------------------------------------------- subscriptions


def subscribe(id: str, *topics: str) -> dict[str, Any]:
    return {"type": "subscribe", "id": id, "topics": list(topics)}


async def test_events_come_after_the_acknowledgement(path: Path, encoding: Any) -> None:
    house = House()
    async with serving(path, house), Raw(path, encoding) as client:
        await client.greet()
        await client.send(subscribe("s1", "steps"))
        assert await client.receive() == {"type": "reply", "id": "s1", "body": None}
        for number in range(3):
            house.publish(number)
        got = [await client.receive() for _ in range(3)]
        assert [event["data"]["number"] for event in got] == [0, 1, 2]
        assert {(event["type"], event["id"], event["topic"]) for event in got} == {("event", "s1", "steps")}
        await client.send(request("a1", {"type": "echo", "text": "x"}))
        assert (await client.receive())["body"] == "x"
    await until(lambda: house.streams[0].closed)


async def test_an_unknown_topic_is_refused(path: Path) -> None:
    async with serving(path, House()), Raw(path) as client:
        await client.greet()
        await client.send(subscribe("s1", "nothing"), subscribe("s2"))
        assert (await client.receive())["code"] == "unknown_topic"
        assert (await client.receive())["code"] == "bad_message"


async def test_what_cannot_be_said_harms_neither_the_client_nor_the_server(path: Path, encoding: Any) -> None:
    """A file's name that is not UTF-8, in an event and in a failure."""
    house = House()
    async with serving(path, house), Raw(path, encoding) as client:
        await client.greet()
        await client.send(subscribe("s1", "steps"), request("a1", {"type": "hold", "name": "h"}))
        await client.receive()
        await until(lambda: "h" in house.held)
        house.publish(1, padding="caf\udce9.jsonl")
        house.held["h"].fail("odd", "caf\udce9.jsonl is gone", {"file": "caf\udce9.jsonl"})
        house.publish(2)
        said = [await client.receive() for _ in range(3)]
        assert [one for one in said if one["type"] == "error"] == [
            {"type": "error", "id": "a1", "code": "odd", "message": r"caf\udce9.jsonl is gone"}
        ]
        first, second = (one["data"] for one in said if one["type"] == "event")
        assert (first["event"], second["number"]) == ("unreadable", 2)


async def test_a_slow_subscriber_misses_events_is_told_where_and_goes_on(path: Path) -> None:
    house = House()
    padding = "x" * 1000
    async with serving(path, house, events=8), Raw(path) as slow, Raw(path) as quick:
        for client in (slow, quick):
            await client.greet()
            await client.send(subscribe("s1", "steps"))
            await client.receive()
        sent = 0
        while sent < 3000:  # far more than the kernel's buffers hold
            house.publish(sent, padding)
            assert (await quick.receive())["data"]["number"] == sent
            sent += 1
        seen: list[int] = []
        missed = 0
        while len(seen) + missed < sent:
            message = await slow.receive()
            if message["type"] == "lagged":
                missed += message["missed"]
            else:
                assert message["data"]["number"] == len(seen) + missed
                seen.append(message["data"]["number"])
        assert missed > 0
        house.publish(sent)
        assert (await slow.receive())["data"]["number"] == sent


async def test_events_lost_before_they_reached_the_server_are_told_too(path: Path) -> None:
    house = House()
    async with serving(path, house), Raw(path) as client:
        await client.greet()
        await client.send(subscribe("s1", "steps"))
        await client.receive()
        house.streams[0].lagged = 5
        house.publish(7)
        assert await client.receive() == {"type": "lagged", "id": "s1", "missed": 5}
        assert (await client.receive())["data"]["number"] == 7
