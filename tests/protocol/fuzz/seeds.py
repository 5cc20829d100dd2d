"""What the fuzzer begins with: the golden frames, conversations of the desk, and the words of the wire."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from protocol.framing import HEADER, Encoding, encode
from tests.protocol.golden.lines import golden

ENCODINGS: tuple[Encoding, ...] = ("json", "msgpack")


def frames(file: str, encoding: Encoding) -> list[bytes]:
    """Return the golden frames of one side as they go on the stream."""
    lines = golden(file).values()
    return [line.json.encode() + b"\n" if encoding == "json" else bytes.fromhex(line.msgpack) for line in lines]


def spoken(encoding: Encoding) -> list[bytes]:
    """Return pieces of conversations that a :class:`tests.protocol.desk.Desk` answers."""

    def ask(id: str, body: Any, to: str = "Desk") -> Any:
        return {"type": "request", "id": id, "to": to, "body": body}

    said: list[Any] = [
        ask("a1", {"type": "echo", "text": "x"}),
        ask("a2", {"type": "hold", "name": "h"}),
        {"type": "cast", "to": "Desk", "body": {"type": "release", "name": "h"}},
        ask("a3", {"type": "refuse"}),
        ask("a4", {"type": "echo"}, to="Nobody"),
        {"type": "subscribe", "id": "s1", "topics": ["numbers"]},
        {"type": "cast", "to": "Desk", "body": {"type": "publish", "number": 7}},
        {"type": "cast", "to": "Desk", "body": {"type": "note", "text": "x"}},
    ]
    return [encode(each, encoding) for each in said]


def write(folder: Path, kind: str) -> None:
    """Fill a folder with first inputs for a target; the byte before each says how it is to be taken."""
    inputs: list[bytes] = [b"\x00", HEADER.pack(0), b"\xff" * 8, b"{" * 64]
    for number, encoding in enumerate(ENCODINGS):
        for side, file in enumerate(("client", "server")):
            head = bytes([number | side << 1])
            inputs += [head + frame for frame in frames(file, encoding)]
            inputs.append(head + b"".join(frames(file, encoding)))
        if kind == "server":
            head = bytes([number | 2])
            inputs += [head + a + b for a, b in itertools.product(spoken(encoding), repeat=2)]
            skipped = 4 if encoding == "msgpack" else 0
            inputs += [
                bytes([number | 0x10]) + frame[skipped:] for frame in spoken(encoding) + frames("client", encoding)
            ]
    for number, data in enumerate(inputs):
        (folder / f"seed-{number:03}").write_bytes(data)


def write_words(path: Path) -> None:
    """Write the dictionary: every key and tag of the golden frames, quoted and packed."""
    words = {b'"type":"', b"[[[[", b"\\ud800", b"1e999", HEADER.pack(1 << 20), HEADER.pack((1 << 20) + 1)}
    for line in (*golden("client").values(), *golden("server").values()):
        said = json.loads(line.json)
        for word in (*said, said["type"]):
            words |= {f'"{word}"'.encode(), bytes([0xA0 | len(word)]) + word.encode()}
    lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words)]
    path.write_text("".join(f'"{line}"\n' for line in lines))
