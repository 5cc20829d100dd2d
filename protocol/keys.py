"""Every key of the configuration, as its type declares it: mark, unit, bounds, and in words what may stand there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from protocol.config import ChildSection, Config, Mark, Section, Unit
from protocol.units import (
    CLOCK_EXAMPLE,
    CLOCK_PATTERN,
    DURATION_EXAMPLE,
    DURATION_PATTERN,
    SIZE_EXAMPLE,
    SIZE_PATTERN,
    format_duration,
    format_size,
)

SUPERVISION = "supervision"
"""The one section that holds a table for each child, instead of keys."""

_PATTERNS: dict[Unit, str] = {"bytes": SIZE_PATTERN, "seconds": DURATION_PATTERN, "clock": CLOCK_PATTERN}

ANY_CHILD = f"{SUPERVISION}.*"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    name: str
    annotation: Any
    """What msgspec checks a value against."""
    mark: Mark
    unit: Unit
    expected: str
    """What would be right, for a message: ``a whole number from 1 to 100``."""


@cache
def sections() -> dict[str, dict[str, Key]]:
    """Return the keys of each plain section, by section and name. ``[supervision.<child>]`` is :func:`child_keys`."""
    hints = get_type_hints(Config)
    return {name: dict(_keys_of(kind)) for name, kind in hints.items() if name != SUPERVISION}


@cache
def child_keys() -> dict[str, Key]:
    """Return the keys of a ``[supervision.<child>]`` table by name."""
    return dict(_keys_of(ChildSection))


def marks() -> dict[str, Mark]:
    """Return when a change of each ``section.key`` takes effect; children stand as ``supervision.*.key``."""
    plain: dict[str, Mark] = {
        f"{section}.{key.name}": key.mark for section, keys in sections().items() for key in keys.values()
    }
    children: dict[str, Mark] = {f"{ANY_CHILD}.{key.name}": key.mark for key in child_keys().values()}
    return plain | children


def _keys_of(section: type[Section]) -> Iterator[tuple[str, Key]]:
    for name, hint in get_type_hints(section, include_extras=True).items():
        annotation = next((each for each in get_args(hint) if get_origin(each) is Annotated), hint)  # of "... | None"
        if get_origin(annotation) is not Annotated:
            raise TypeError(f"{section.__name__}.{name} has no mark")
        kind, meta = get_args(annotation)
        unit: Unit = meta.extra["unit"]
        expected = _what(kind, unit) + _bounds(meta, unit)
        yield name, Key(name, annotation, meta.extra["mark"], unit, expected)


def _what(kind: Any, unit: Unit) -> str:
    if unit != "plain":
        return {"bytes": SIZE_EXAMPLE, "seconds": DURATION_EXAMPLE, "clock": CLOCK_EXAMPLE}[unit]
    if get_origin(kind) is Literal:
        return " or ".join(msgspec.json.encode(choice).decode() for choice in get_args(kind))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}
    return names[kind]


def _bounds(meta: msgspec.Meta, unit: Unit) -> str:
    def shown(bound: float) -> str:
        if unit == "bytes":
            return format_size(int(bound))
        return format_duration(bound) if unit == "seconds" else f"{bound:g}" if bound < 1e6 else str(bound)

    if meta.ge is not None and meta.le is not None:
        return f" from {shown(meta.ge)} to {shown(meta.le)}"
    parts = [
        f"{word} {shown(bound)}"
        for word, bound in (("at least", meta.ge), ("above", meta.gt), ("at most", meta.le), ("below", meta.lt))
        if bound is not None and not (unit != "plain" and bound == 0 and word == "at least")
    ]
    return ", " + " and ".join(parts) if parts else ""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors: units as people write them, and marks."""
    made = msgspec.json.schema(Config)
    kinds = get_type_hints(Config)
    tables = {kinds[section].__name__: keys for section, keys in sections().items()}
    for name, keys in {**tables, ChildSection.__name__: child_keys()}.items():
        properties = made["$defs"][name]["properties"]
        for key in keys.values():
            if key.unit in _PATTERNS:
                as_text = {"type": "string", "pattern": _PATTERNS[key.unit]}
                as_number = properties[key.name]
                properties[key.name] = {"anyOf": [as_number, as_text]} if key.unit != "clock" else as_number | as_text
            properties[key.name]["x-mark"] = key.mark
    return made
