"""How many answers are remembered, and what is forgotten first."""

from __future__ import annotations

import msgspec

from protocol.answers import Answers, Asked
from protocol.framing import encode_frame
from protocol.wire import ErrorFrame, ReplyFrame, RequestFrame


def request(id: str, body: bytes = b"{}") -> RequestFrame:
    return RequestFrame(id=id, to="House", body=msgspec.Raw(body))


def answer(memory: Answers, id: str, value: object = "x") -> Asked:
    asked, new = memory.ask(request(id), "json")
    assert new
    asked.reply(value)
    return asked


def known(memory: Answers, id: str) -> bool:
    return not memory.ask(request(id), "json")[1]


def test_the_last_answers_are_kept_and_the_oldest_go_first() -> None:
    memory = Answers(kept=3)
    for id in "abcd":
        answer(memory, id)
    assert [known(memory, id) for id in "bcd"] == [True] * 3
    assert not known(memory, "a")


def test_large_answers_are_kept_for_a_shorter_time() -> None:
    memory = Answers(kept=1000, kept_bytes=10_000)
    for id in "abcd":
        answer(memory, id, "x" * 4000)
    assert [known(memory, id) for id in "cd"] == [True] * 2
    assert not known(memory, "b")


def test_what_is_under_way_is_never_forgotten() -> None:
    memory = Answers(kept=1)
    waiting, _ = memory.ask(request("w"), "json")
    for id in "abc":
        answer(memory, id)
    again, new = memory.ask(request("w"), "json")
    assert again is waiting and not new


def test_an_answer_is_told_once_to_each_who_waits_and_never_changes() -> None:
    memory = Answers()
    asked, _ = memory.ask(request("a"), "msgpack")
    told: list[Asked] = []
    asked.waiters += (told.append, told.append)
    asked.reply({"n": 1})
    asked.reply({"n": 2})
    asked.fail("late", "too late")
    assert told == [asked, asked]
    assert asked.data == encode_frame(ReplyFrame(id="a", body={"n": 1}))


def test_the_same_bytes_in_the_other_encoding_are_another_request() -> None:
    memory = Answers()
    first, _ = memory.ask(request("a", b"1"), "json")  # the number 1; in msgpack, 49
    second, new = memory.ask(request("a", b"1"), "msgpack")
    assert new and second is not first
    first.reply(1)
    second.reply(49)
    assert first.data == b'{"type":"reply","id":"a","body":1}\n'
    assert second.data == encode_frame(ReplyFrame(id="a", body=49))


def test_a_failure_keeps_its_detail() -> None:
    memory = Answers()
    asked, _ = memory.ask(request("a"), "json")
    asked.fail("refused", "no", {"why": 1})
    assert asked.failure() == ErrorFrame(code="refused", message="no", id="a", detail={"why": 1})
    assert known(memory, "a")


def test_giving_up_what_is_over_is_nothing() -> None:
    given_up: list[str] = []
    asked, _ = Answers().ask(request("a"), "json")
    asked.begun(lambda: given_up.append("a"))
    asked.reply(1)
    asked.cancel()
    asked.begun(lambda: given_up.append("b"))
    asked.cancel()
    assert given_up == []
