"""The schema of the wire is made from the types, whole, and free of loose ends."""

from __future__ import annotations

import json
from typing import Any

from protocol.cli.schema import SCHEMA
from protocol.messages.public import PUBLIC
from protocol.messages.queue import GetQueue, Pause
from protocol.messages.trainer import Progress
from protocol.schema import all_messages, schema, tag


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        here = {node["$ref"]} if "$ref" in node else set()
        return here.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def test_what_is_written_down_is_what_the_types_say() -> None:
    """If not: ``python -m protocol.schema > protocol/wire.schema.json``, and look at what has changed."""
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))


def test_every_reference_leads_somewhere() -> None:
    made = schema()
    json.dumps(made)
    assert {ref.removeprefix("#/$defs/") for ref in references(made)} <= set(made["$defs"])


def test_every_message_is_there_and_every_request_has_its_reply() -> None:
    made = schema()
    assert {message.__name__ for message in all_messages()} <= set(made["$defs"])
    assert {GetQueue, Pause, Progress} <= set(all_messages())
    assert made["x-replies"]["get_queue"] == {"type": "array", "items": {"$ref": "#/$defs/JobView"}}
    assert made["x-replies"]["pause"] == {"$ref": "#/$defs/Done"}
    assert "progress" in made["x-internal"] and "pause" not in made["x-internal"]


def test_tags_are_unique_and_the_public_ones_are_offered_to_their_actor() -> None:
    tags = [tag(message) for message in all_messages()]
    assert len(tags) == len(set(tags))
    narrowed = {
        entry["allOf"][1]["properties"]["to"]["const"]: entry["allOf"][1]["properties"]["body"]["anyOf"]
        for entry in schema()["oneOf"]
        if "allOf" in entry
    }
    assert set(narrowed) == set(PUBLIC)
    assert {"$ref": "#/$defs/GetQueue"} in narrowed["QueueManager"]


def test_unknown_fields_are_refused_everywhere() -> None:
    loose = [
        name
        for name, definition in schema()["$defs"].items()
        if definition.get("type") == "object" and definition.get("additionalProperties") is not False
    ]
    assert loose == []
