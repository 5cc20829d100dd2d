"""On which line of a TOML text each key stands. The standard library's parser does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from io import StringIO
from typing import Any

Path = tuple[str, ...]


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of each table header and key of a valid TOML text, by its path of names.

    A TOML statement is valid by itself, so each is found by adding lines until the parser accepts what there is.
    """
    lines: dict[Path, int] = {}
    table: Path = ()
    statement = ""
    begun = 1
    for number, line in enumerate(StringIO(text, newline="\n"), 1):  # not splitlines(), which knows more line ends
        if not statement:
            begun = number
        statement += line
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # a string or an array goes on in the next line
        header = statement.lstrip().startswith("[")
        statement = ""
        outer = () if header else table
        for path in _paths(parsed):
            lines.setdefault(outer + path, begun)
            if header:
                table = path  # the last one is the innermost
    return lines


def _paths(parsed: dict[str, Any]) -> Iterator[Path]:
    for name, value in parsed.items():
        yield (name,)
        inner = value[-1] if isinstance(value, list) and value and isinstance(value[-1], dict) else value
        if isinstance(inner, dict):
            for path in _paths(inner):
                yield (name, *path)
