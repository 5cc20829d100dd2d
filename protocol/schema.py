"""The JSON Schema of everything that can be said on the wire, made from the types.

``python -m protocol.schema > protocol/wire.schema.json`` writes down what ``stokehold protocol schema`` prints.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from typing import Any

import msgspec

import protocol.messages
from protocol.messages.common import Message, Request, reply_type
from protocol.messages.public import PUBLIC
from protocol.wire import (
    VERSION,
    CastFrame,
    ErrorFrame,
    EventFrame,
    Frame,
    HelloFrame,
    JoinFrame,
    LaggedFrame,
    ReplyFrame,
    RequestFrame,
    SubscribeFrame,
    WelcomeFrame,
)

PLAIN: tuple[type[Frame], ...] = (
    HelloFrame, SubscribeFrame, JoinFrame, WelcomeFrame, ReplyFrame, ErrorFrame, EventFrame, LaggedFrame,
)  # fmt: skip
"""Envelopes that carry no message to an actor."""


def schema() -> dict[str, Any]:
    """Return the schema of one message of a connection, in either direction.

    ``$defs`` holds all envelopes, messages and records. Requests and casts are narrowed, for each actor, to what that
    actor takes from the socket. ``x-replies`` tells by message tag what a request is answered with; ``x-internal``
    lists the messages that only actors say to each other.
    """
    messages = all_messages()
    requests = [message for message in messages if issubclass(message, Request)]
    public = {message for taken in PUBLIC.values() for message in taken}
    types = [*PLAIN, RequestFrame, CastFrame, *messages, *(reply_type(request) for request in requests)]
    schemas, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"stokehold wire, version {VERSION}",
        "oneOf": [*schemas[: len(PLAIN)], *_addressed()],
        "x-replies": {tag(request): reply for request, reply in zip(requests, schemas[-len(requests) :], strict=True)},
        "x-internal": sorted(tag(message) for message in messages if message not in public),
        "$defs": definitions,
    }


def all_messages() -> list[type[Message]]:
    """Return every message class of ``protocol.messages``, by module and in the order of the text."""
    modules = [
        importlib.import_module(f"{protocol.messages.__name__}.{module.name}")
        for module in pkgutil.iter_modules(protocol.messages.__path__)
    ]
    return [
        found
        for module in modules
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, Message)
        and found not in (Message, Request)
        and found.__module__ == module.__name__
    ]


def tag(message: type[Message]) -> str:
    """Return what stands in the ``type`` of a message."""
    return str(message.__struct_config__.tag)


def _addressed() -> list[dict[str, Any]]:
    """Return, for each actor, the requests and the casts that it takes from the socket."""
    narrowed = []
    for actor, taken in PUBLIC.items():
        asked = [message for message in taken if issubclass(message, Request)]
        told = [message for message in taken if not issubclass(message, Request)]
        # A request may be cast too: its answer then goes nowhere.
        for frame, messages in ((RequestFrame, asked), (CastFrame, [*asked, *told])):
            bodies = [{"$ref": f"#/$defs/{message.__name__}"} for message in messages]
            if bodies:
                properties = {"to": {"const": actor}, "body": {"anyOf": bodies}}
                narrowed.append({"allOf": [{"$ref": f"#/$defs/{frame.__name__}"}, {"properties": properties}]})
    return narrowed


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
