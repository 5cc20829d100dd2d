"""One line of a JSONL file: which of the three formats it has, or what is wrong with it.

A row is a JSON object with exactly one of these sets of keys: ``text``; ``prompt`` and ``completion``; ``messages``.
Other keys are carried along by many data sets, so they are allowed and ignored. But a row that names keys of two
formats could be trained in two ways, and a key that stands twice in one object means different things to different
JSON readers: such rows are refused. A format key counts when it is present, whatever its value.

What is trained (``text``, ``completion``, the contents of the assistant) must not be empty or blank.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, cast, get_args

Role = Literal["system", "developer", "user", "assistant", "tool"]

ROLES: Final = frozenset(get_args(Role))
FORMATS: Final = (frozenset({"text"}), frozenset({"prompt", "completion"}), frozenset({"messages"}))
FORMAT_KEYS: Final = frozenset().union(*FORMATS)
MOST_PIECES: Final = 200_000
"""Strings, commas and brackets in one row. Tens of millions of them would take gigabytes, and hold up the process while
they are read."""
_PIECE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[,\[{]', re.DOTALL)
"""A whole string of JSON, or what separates values outside of strings. Possessive, so that no line takes long."""

EXPECTED: Final = '{"text"}, {"prompt", "completion"} or {"messages"}'


@dataclass(frozen=True, slots=True)
class TextRow:
    """Plain text: all of it is trained."""

    text: str


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """Only the completion is trained. The prompt may be empty."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class MessagesRow:
    """A conversation: only what the assistant says is trained, and it says something."""

    messages: tuple[Turn, ...]


Row = TextRow | CompletionRow | MessagesRow


class BadRow(ValueError):
    """The line cannot be trained on. Its text is the reason, for the person who wrote the file."""


def parse_row(line: bytes) -> Row:
    """Return the row that one line holds.

    Args:
        line: the bytes of the line, with or without its line break; no byte order mark.

    Raises:
        BadRow: it is not UTF-8, not JSON (RFC 8259: no NaN, no Infinity), or none of the three formats.
    """
    value = _decode(line)
    if not isinstance(value, dict):
        raise BadRow(f"not a JSON object but {_kind(value)}; a row is one of {EXPECTED}")
    keys = FORMAT_KEYS & value.keys()
    if keys not in FORMATS:
        raise BadRow(_wrong_keys(keys))
    if "text" in keys:
        return TextRow(_trained(value["text"], '"text"'))
    if "messages" in keys:
        return _conversation(value["messages"])
    return CompletionRow(_string(value["prompt"], '"prompt"'), _trained(value["completion"], '"completion"'))


def _decode(line: bytes) -> object:
    if _is_crowded(line):
        raise BadRow(f"more than {MOST_PIECES} strings, lists, objects and commas in one row")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8: byte 0x{line[error.start]:02x} in column {error.start + 1}") from error
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRow(f"not valid JSON: {error.msg} in column {error.colno}") from error
    except RecursionError as error:
        raise BadRow("nested too deep") from error
    except ValueError as error:  # BadRow passes through; an integer of more than 4300 digits is a plain ValueError
        if isinstance(error, BadRow):
            raise
        raise BadRow(f"not usable JSON: {error}") from error


def _is_crowded(line: bytes) -> bool:
    if line.count(b",") + line.count(b"[") + line.count(b"{") + line.count(b'"') <= MOST_PIECES:
        return False  # the usual case, and told at once: texts hold commas, but not so many
    return any(number == MOST_PIECES for number, _ in enumerate(_PIECE.finditer(line)))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build one JSON object, refusing a key that stands twice (``object_pairs_hook`` of the decoder)."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRow(f'the key "{twice}" stands twice in one object')
    return result


def _no_constant(name: str) -> NoReturn:
    raise BadRow(f"not valid JSON: {name} is not a JSON number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _conversation(value: object) -> MessagesRow:
    if not isinstance(value, list):
        raise BadRow(f'"messages" is not a list but {_kind(value)}')
    turns = tuple(_turn(item, f"messages[{index}]") for index, item in enumerate(value))
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise BadRow('nothing to train: no message with role "assistant" has any content')
    return MessagesRow(turns)


def _turn(value: object, where: str) -> Turn:
    if not isinstance(value, dict):
        raise BadRow(f"{where} is not an object but {_kind(value)}")
    for key in ("role", "content"):
        if key not in value:
            raise BadRow(f'{where} has no "{key}"')
    role = value["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f"{where}.role is {json.dumps(role)[:80]}; it must be one of {', '.join(sorted(ROLES))}")
    return Turn(cast(Role, role), _string(value["content"], f"{where}.content"))


def _trained(value: object, what: str) -> str:
    text = _string(value, what)
    if not text.strip():
        raise BadRow(f"nothing to train: {what} is empty")
    return text


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{what} is not a string but {_kind(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # an escape such as "\ud800" alone: valid JSON, but no text
        raise BadRow(f"{what} holds half a character (\\u{ord(value[error.start]):04x} without its pair)") from error
    return value


def _wrong_keys(keys: frozenset[str]) -> str:
    if not keys:
        return f"no known key; a row is one of {EXPECTED}"
    if keys < FORMATS[1]:
        (missing,) = FORMATS[1] - keys
        return f'"{next(iter(keys))}" without "{missing}"'
    named = " and ".join(f'"{key}"' for key in sorted(keys))
    return f"ambiguous: {named} in one row; a row is one of {EXPECTED}"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kind, name in ((dict, "an object"), (list, "a list"), (str, "a string")):
        if isinstance(value, kind):
            return name
    return "a number"
