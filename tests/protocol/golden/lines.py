"""Reading, writing and adding to the golden lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from protocol.framing import encode_frame
from tests.protocol.golden.examples import ALL

FOLDER = Path(__file__).parent / "v1"


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One example, as it went over the wire."""

    name: str
    json: str
    msgpack: str


def written(file: str, name: str, value: Any) -> Line:
    """Return what this code writes for a value: a frame with its length, a body without."""
    encode = encode_frame if file in ("client", "server") else msgspec.msgpack.encode
    return Line(name, msgspec.json.encode(value).decode(), encode(value).hex())


def golden(file: str) -> dict[str, Line]:
    """Return the lines of a file by name."""
    path = FOLDER / f"{file}.jsonl"
    text = path.read_bytes() if path.exists() else b""
    lines = [msgspec.json.decode(line, type=Line) for line in text.splitlines()]
    assert len({line.name for line in lines}) == len(lines), f"{path} has a name twice"
    return {line.name: line for line in lines}


def add() -> list[str]:
    """Write a line for every example that has none; those that stand there are left as they are."""
    added = []
    for file, examples in ALL.items():
        known = golden(file)
        with (FOLDER / f"{file}.jsonl").open("ab") as out:
            for name, value in examples.items():
                if name not in known:
                    out.write(msgspec.json.encode(written(file, name, value)) + b"\n")
                    added.append(f"{file}: {name}")
    return added
