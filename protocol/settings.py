"""Reads a configuration file into :class:`protocol.config.Config`, and says of each value where it came from.

Everything that is wrong with a file is found and told at once, each with its line, its key and what would be right.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from protocol.config import CHILDREN, Config, Mark
from protocol.keys import SUPERVISION, Key, child_keys, marks, schema, sections
from protocol.toml_lines import key_lines
from protocol.units import format_duration, format_size, parse_clock, parse_duration, parse_size

__all__ = [
    "COMMAND_LINE",
    "ConfigError",
    "Loaded",
    "Problem",
    "difference",
    "flat",
    "format_duration",
    "format_size",
    "load",
    "marks",
    "parse_clock",
    "parse_duration",
    "parse_size",
    "schema",
    "written",
]

DEFAULT = "default"
COMMAND_LINE = "command line"

_LARGEST = 2**63 - 1
"""Whole numbers above this cannot be sent to a training process."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration."""

    where: str
    """``file:line``, the file alone, or ``command line``."""
    key: str
    """``section.key``; empty when the whole file is meant."""
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


class ConfigError(Exception):
    """A configuration is refused; ``problems`` holds all that is wrong with it, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from."""

    config: Config
    origins: dict[str, str]
    """``file:line``, ``default`` or ``command line``, by ``section.key``."""
    path: Path | None

    @property
    def home(self) -> Path:
        """The home that it names: relative to the file; the file's folder when it names none."""
        folder = self.path.parent if self.path else Path.cwd()
        return (folder / self.config.daemon.home).resolve()


def load(path: Path | None, overrides: Mapping[str, object] | None = None) -> Loaded:
    """Read a configuration file, or the defaults alone when ``path`` is None.

    Args:
        path: the TOML file.
        overrides: values that win over the file, by ``section.key``, as they would stand in TOML.

    Raises:
        ConfigError: the file cannot be read or parsed, or anything in it is wrong.
    """
    reader = _Reader(path)
    document = reader.document()
    for key, value in (overrides or {}).items():
        reader.override(document, key, value)
    values: dict[str, Any] = {}
    for name, table in document.items():
        if name == SUPERVISION:
            values[name] = reader.children(table)
        elif name in sections():
            values[name] = reader.table((name,), table, sections()[name])
        else:
            reader.unknown((name,), [*sections(), SUPERVISION])
    config = _follow(msgspec.convert(values, Config), values)
    for key, message in _senseless(config):
        reader.problem(tuple(key.split(".")), message)
    if reader.problems:
        raise ConfigError(sorted(reader.problems, key=reader.place))
    return Loaded(config, {key: reader.origin(key) for key in flat(config)}, path)


def flat(config: Config) -> dict[str, Any]:
    """Return every value by ``section.key``; children as ``supervision.<child>.key``, where they are set."""
    plain = {
        f"{section}.{name}": getattr(getattr(config, section), name)
        for section, keys in sections().items()
        for name in keys
    }
    return plain | {
        f"{SUPERVISION}.{child}.{name}": value
        for child, table in config.supervision.items()
        for name in child_keys()
        if (value := getattr(table, name)) is not None
    }


def written(config: Config) -> dict[str, str]:
    """Return every value as it would stand in a file, by ``section.key`` as in :func:`flat`."""
    return {key: _as_toml(_key(key), value) for key, value in flat(config).items()}


def difference(old: Config, new: Config) -> list[tuple[str, Mark]]:
    """Return each ``section.key`` whose value differs, with when a change of it takes effect."""
    before, after = flat(old), flat(new)
    return [(key, _key(key).mark) for key in {**before, **after} if before.get(key) != after.get(key)]


def _key(path: str) -> Key:
    """Return the key of a ``section.key`` or ``supervision.child.key``."""
    section, _, name = path.rpartition(".")
    return sections()[section][name] if section in sections() else child_keys()[name]


def _as_toml(key: Key, value: Any) -> str:
    forms: dict[str, tuple[Callable[..., str], Callable[[str], float]]] = {
        "bytes": (format_size, parse_size),
        "seconds": (format_duration, parse_duration),
    }
    if key.unit in forms:
        form, parse = forms[key.unit]
        with suppress(ValueError):  # 953.7MiB is no whole number of bytes
            if parse(text := form(value)) == value:  # where rounding lost something, the number is shown
                return f'"{text}"'
    return msgspec.json.encode(value).decode()


class _Reader:
    """One reading of one file: collects the problems, and knows the lines."""

    def __init__(self, path: Path | None) -> None:
        self.problems: list[Problem] = []
        self._path = path
        self._lines: dict[tuple[str, ...], int] = {}
        self._overridden: set[str] = set()

    def document(self) -> dict[str, Any]:
        """Return the parsed file, or raise ConfigError if there is none or it is not TOML."""
        if self._path is None:
            return {}
        try:
            text = self._path.read_text(encoding="utf-8")
            document = tomllib.loads(text)
        except OSError as error:
            raise ConfigError([Problem(str(self._path), "", f"cannot be read: {error.strerror}")]) from error
        except UnicodeDecodeError as error:
            raise ConfigError([Problem(str(self._path), "", f"not UTF-8: byte {error.start}")]) from error
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"(.*) \(at line (\d+)", str(error))
            what, line = found.groups() if found else (str(error), str(len(text.splitlines())))
            raise ConfigError([Problem(f"{self._path}:{line}", "", f"not TOML: {what}")]) from error
        self._lines = key_lines(text)
        return document

    def override(self, document: dict[str, Any], key: str, value: object) -> None:
        """Put a value of the command line into the document."""
        self._overridden.add(key)
        *tables, last = key.split(".")
        table = document
        for name in tables:
            inner = table.setdefault(name, {})
            if not isinstance(inner, dict):
                return  # told as a section that is no table
            table = inner
        table[last] = value

    def children(self, table: object) -> dict[str, dict[str, Any]]:
        """Read ``[supervision]``: one table for each child."""
        if not isinstance(table, dict):
            self.problem((SUPERVISION,), f"write a table for each child: [{SUPERVISION}.NAME]")
            return {}
        good = {}
        for child, inner in table.items():
            if child in CHILDREN:
                keys = {name: child_keys()[name] for name in CHILDREN[child]}
                good[child] = self.table((SUPERVISION, child), inner, keys)
            else:
                self.unknown((SUPERVISION, child), list(CHILDREN))
        return good

    def table(self, path: tuple[str, ...], table: object, keys: Mapping[str, Key]) -> dict[str, Any]:
        """Read one section and return its good values."""
        if not isinstance(table, dict):
            self.problem(path, f"must be a section: write [{'.'.join(path)}] on a line of its own")
            return {}
        good = {}
        for name, raw in table.items():
            if name not in keys:
                self.unknown((*path, name), list(keys))
                continue
            try:
                good[name] = _value(keys[name], raw)
            except ValueError as error:
                self.problem((*path, name), str(error))
        return good

    def unknown(self, path: tuple[str, ...], candidates: list[str]) -> None:
        """Refuse an unknown name, with the nearest right one: here first, then of any section."""
        what = "section" if len(path) == 1 or path[:-1] == (SUPERVISION,) else "key"
        *_, name = path
        near = difflib.get_close_matches(name, candidates, n=1)
        if near:
            hint = f"; did you mean {'.'.join((*path[:-1], near[0]))}?"
        elif homes := [f"{section}.{name}" for section, keys in sections().items() if name in keys]:
            hint = f"; did you mean {' or '.join(homes)}?"
        else:
            hint = f"; there are: {', '.join(candidates)}"
        self.problem(path, f"unknown {what}{hint}")

    def problem(self, path: tuple[str, ...], message: str) -> None:
        key = ".".join(path)
        where = self.origin(key)
        self.problems.append(Problem(str(self._path) if where == DEFAULT else where, key, message))

    def origin(self, key: str) -> str:
        """Return where the value of a ``section.key`` comes from."""
        if key in self._overridden:
            return COMMAND_LINE
        line = self._lines.get(tuple(key.split(".")))
        if line is None:
            return DEFAULT
        return f"{self._path}:{line}"

    def place(self, problem: Problem) -> int:
        """Return the line of a problem, to sort by."""
        return self._lines.get(tuple(problem.key.split(".")), 0)


def _value(key: Key, raw: object) -> Any:
    """Return what a value of a file means, or raise ValueError with what would be right."""
    value = raw
    if isinstance(raw, str) and key.unit in ("bytes", "seconds"):
        value = parse_size(raw) if key.unit == "bytes" else parse_duration(raw)
    elif isinstance(raw, str) and key.unit == "clock":
        parse_clock(raw)
    wrong = ValueError(f"{_shown(raw)} is not right; expected {key.expected}")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong
    if key.unit == "seconds" and isinstance(value, int | float) and value < 0:
        raise wrong
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{_shown(raw)} is too large; expected {key.expected}")
    try:
        return msgspec.convert(value, key.annotation)
    except msgspec.ValidationError as error:
        raise wrong from error


def _shown(raw: object) -> str:
    """Return a value nearly as it stands in the file."""
    return msgspec.json.encode(raw).decode() if isinstance(raw, str | bool) else str(raw)


def _follow(config: Config, given: Mapping[str, Mapping[str, Any]]) -> Config:
    """Move the defaults that would contradict a value that the user did give."""
    disk, inbox = config.disk, config.inbox
    if "warn_below" not in given.get("disk", {}):
        disk = msgspec.structs.replace(disk, warn_below=max(disk.warn_below, disk.refuse_below))
    if "max_line" not in given.get("inbox", {}):
        inbox = msgspec.structs.replace(inbox, max_line=min(inbox.max_line, inbox.max_file))
    return msgspec.structs.replace(config, disk=disk, inbox=inbox)


def _senseless(config: Config) -> Iterator[tuple[str, str]]:
    """Tell of values that are each possible and together make no sense, or that would stop the daemon for ever."""
    disk, inbox = config.disk, config.inbox
    if disk.warn_below < disk.refuse_below:
        yield (
            "disk.warn_below",
            f"{format_size(disk.warn_below)} is less than disk.refuse_below ({format_size(disk.refuse_below)}): "
            "the warning would come after the refusal; raise the one or lower the other",
        )
    if inbox.max_line > inbox.max_file:
        yield (
            "inbox.max_line",
            f"{format_size(inbox.max_line)} is more than inbox.max_file ({format_size(inbox.max_file)})",
        )
    if not config.model.source.strip():
        yield "model.source", 'is empty; expected "tiny", a folder, or a hub id'
    if not config.training.lora_targets.strip(" ,"):
        yield "training.lora_targets", 'is empty; expected "all-linear", or module names with commas between'
    if not config.http.host.strip():
        yield "http.host", 'is empty; expected an address to listen on, such as "127.0.0.1"'
