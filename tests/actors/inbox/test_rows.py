"""Which lines can be trained on, and what is said of those that cannot."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors.inbox.rows import MOST_PIECES, BadRow, CompletionRow, MessagesRow, TextRow, Turn, parse_row

GOOD = [
    ('{"text": "one"}', TextRow("one")),
    ('  {"text": "one"}  \r\n', TextRow("one")),
    ('{"text": "\\u00e9 \\ud83d\\ude00"}', TextRow("é 😀")),
    ('{"text": "one", "id": 7, "meta": {"source": null}}', TextRow("one")),
    ('{"prompt": "a", "completion": "b"}', CompletionRow("a", "b")),
    ('{"prompt": "", "completion": "b"}', CompletionRow("", "b")),
    (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "name": "x"}]}',
        MessagesRow((Turn("user", "a"), Turn("assistant", "b"))),
    ),
]

BAD = [
    ("", "not valid JSON"),
    ('{"text": "one"', "not valid JSON: Expecting ',' delimiter in column 15"),
    ('{"text": "one"} {"text": "two"}', "Extra data in column 17"),
    ('["text"]', "not a JSON object but a list"),
    ('"text"', "not a JSON object but a string"),
    ("7", "not a JSON object but a number"),
    ("true", "not a JSON object but true or false"),
    ("null", "not a JSON object but null"),
    ("{}", "no known key"),
    ('{"Text": "one"}', "no known key"),
    ('{"text": 1}', '"text" is not a string but a number'),
    ('{"text": null}', '"text" is not a string but null'),
    ('{"text": ""}', 'nothing to train: "text" is empty'),
    ('{"text": " \\n\\t"}', 'nothing to train: "text" is empty'),
    ('{"text": NaN}', "NaN is not a JSON number"),
    ('{"text": "one", "score": -Infinity}', "-Infinity is not a JSON number"),
    ('{"text": "\\ud83d"}', "half a character"),
    ('{"text": "one", "text": "two"}', 'the key "text" stands twice'),
    ('{"text": "one", "meta": {"a": 1, "a": 2}}', 'the key "a" stands twice'),
    ('{"text": "one", "n": ' + "9" * 5000 + "}", "not usable JSON"),
    ('{"text": ' + "[" * 100_000, "nested too deep"),
    ('{"prompt": "a"}', '"prompt" without "completion"'),
    ('{"completion": "a"}', '"completion" without "prompt"'),
    ('{"prompt": "a", "completion": " "}', 'nothing to train: "completion" is empty'),
    ('{"prompt": ["a"], "completion": "b"}', '"prompt" is not a string but a list'),
    ('{"text": "a", "prompt": "b", "completion": "c"}', 'ambiguous: "completion" and "prompt" and "text"'),
    ('{"text": "a", "messages": null}', 'ambiguous: "messages" and "text"'),
    ('{"messages": {}}', '"messages" is not a list but an object'),
    ('{"messages": []}', "nothing to train"),
    ('{"messages": ["a"]}', "messages[0] is not an object but a string"),
    ('{"messages": [{"role": "user"}]}', 'messages[0] has no "content"'),
    ('{"messages": [{"content": "a"}]}', 'messages[0] has no "role"'),
    ('{"messages": [{"role": "gpt", "content": "a"}]}', 'messages[0].role is "gpt"; it must be one of assistant'),
    ('{"messages": [{"role": ["user"], "content": "a"}]}', 'messages[0].role is ["user"]'),
    ('{"messages": [{"role": "assistant", "content": null}]}', "messages[0].content is not a string but null"),
    ('{"messages": [{"role": "user", "content": "a"}]}', "nothing to train"),
    ('{"messages": [{"role": "assistant", "content": ""}]}', "nothing to train"),
]


@pytest.mark.parametrize(("line", "row"), GOOD)
def test_a_row_of_each_format_is_read(line: str, row: object) -> None:
    assert parse_row(line.encode()) == row


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_what_is_wrong_is_said(line: str, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        parse_row(line.encode())
    assert reason in str(caught.value)


def test_bytes_that_are_not_utf8_are_named_with_their_column() -> None:
    with pytest.raises(BadRow, match="not UTF-8: byte 0xe9 in column 13"):
        parse_row(b'{"text": "ab\xe9"}')


CROWDED = [
    b'{"text": "x", "a": [' + b"[]," * MOST_PIECES + b"[]]}",
    b'{"text": "x", "a": [' + b'"",' * MOST_PIECES + b'""]}',
    b'{"text": ' + b'""' * MOST_PIECES,
    b"[" * (MOST_PIECES + 1),
]


@pytest.mark.parametrize("line", CROWDED, ids=["lists", "strings", "no commas", "brackets"])
def test_a_row_of_more_values_than_anybody_trains_is_refused_before_it_is_read(line: bytes) -> None:
    with pytest.raises(BadRow, match="more than 200000 strings, lists, objects and commas"):
        parse_row(line)


@pytest.mark.parametrize("text", ["a, b [c] {d} ", '\\", ', "\\\\ , "], ids=["plain", "escaped quotes", "backslashes"])
def test_a_text_may_hold_as_many_commas_and_quotes_as_it_likes(text: str) -> None:
    line = b'{"text": "' + text.encode() * MOST_PIECES + b'"}'
    assert parse_row(line) == TextRow(json.loads(line)["text"])
    with pytest.raises(BadRow, match="not valid JSON"):
        parse_row(line[:-2])


@given(some.binary(max_size=200))
def test_any_bytes_are_a_row_or_a_bad_row(line: bytes) -> None:
    try:
        parse_row(line)
    except BadRow as error:
        assert str(error)


_json = some.recursive(
    some.none() | some.booleans() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=4), inner, max_size=4),
)
_keys = some.sampled_from(["text", "prompt", "completion", "messages", "role", "content", "id"])


@given(some.dictionaries(_keys, _json, max_size=4))
def test_any_object_is_a_row_or_a_bad_row(value: dict[str, object]) -> None:
    try:
        row = parse_row(json.dumps(value).encode())
    except BadRow as error:
        assert str(error)
    else:
        formats = value.keys() & {"text", "prompt", "completion", "messages"}
        assert formats in ({"text"}, {"prompt", "completion"}, {"messages"})
        assert isinstance(row, TextRow | CompletionRow | MessagesRow)
