"""The two kinds of message, and the records that several actors share.

A *message* is a frozen, tagged ``msgspec.Struct``; its tag on the wire is the snake_case of its class name
(``GetQueue`` -> ``"get_queue"``). A ``Request[R]`` is a message that is answered with an ``R``, so that
``await ref.call(GetQueue())`` is typed as the reply. A plain ``Message`` can only be cast.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, ForwardRef, Generic, Literal, TypeVar, cast, get_args, get_origin

import msgspec

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")

Phase = Literal["loading", "tokenising", "training", "evaluating", "saving"]


def tag_of(class_name: str) -> str:
    """Return the wire tag of a message class: the snake_case of its name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=tag_of):
    """Something that can be said to an actor. Cast only, unless it is a :class:`Request`."""


class Request(Message, Generic[R_co], frozen=True):
    """A message that is answered, once, with a value of type ``R_co``.

    It is covariant so that mypy, which looks at where an answer goes, lets it go where an ``object`` is wanted.
    """


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value carried inside messages, snapshots and files."""


def reply_type(message: type[Request[R]]) -> type[R]:
    """Return the reply type that a request class was declared with (``None`` gives ``NoneType``).

    Raises:
        TypeError: ``message`` does not derive from a parametrised ``Request``.
    """
    for klass in message.__mro__:
        for base in getattr(klass, "__orig_bases__", ()):
            if get_origin(base) is Request:
                (reply,) = get_args(base)
                if isinstance(reply, ForwardRef):
                    raise TypeError(f"{message.__name__}: define {reply.__forward_arg__} before it")
                return cast(type[R], type(None) if reply is None else reply)
    raise TypeError(f"{message.__name__} does not say what it is answered with: derive it from Request[ReplyType]")


class Done(Record, frozen=True):
    """The answer of a request that has nothing to tell but that it was done."""

    detail: str = ""


class BadLine(Record, frozen=True):
    """A line of a JSONL file that cannot be trained on."""

    line: int
    """Line number, from 1."""
    reason: str
    """What is wrong with it, in words for the person who wrote the file."""


class Trouble(Record, frozen=True):
    """Something that the user should know, with the command that ends it."""

    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.remedy})" if self.remedy else self.reason


class TailEvent(Record, frozen=True):
    """One entry of an event topic, as subscribers receive it."""

    topic: str
    at: datetime
    data: dict[str, Any]
