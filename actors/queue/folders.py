"""The visible half of the queue: payloads in folders, under names that people recognise.

A payload keeps its name. Where that is taken in the folder it goes to, it becomes ``NAME~2``; one that is too long
is cut, and the row keeps the full one. Names are valid UTF-8 from here on: bytes that are not are written
``\\xNN``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.queue.job import PLACES, Place, Stamp
from protocol.home import Home
from protocol.inbox_names import printable
from protocol.messages.common import Priority
from supervisor.durable import Disk

LONGEST = 200
"""Bytes of a payload's name: leaves room for ``~N``, for ``.error.json`` and for a prefix within the kernel's 255."""
ERROR_SUFFIX = ".error.json"
_HINTS = 10_000
_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{12}\.tmp", re.DOTALL)
"""How :class:`Disk` names what it has not finished writing."""
_PAGE = 4096
_COARSEST_NS = 2_000_000_000
"""A copy has the time of its source, but no file system keeps it worse than FAT."""
_NUMBERED = re.compile(r"(.+\.jsonl)~[0-9]+", re.IGNORECASE | re.DOTALL)


class ErrorReport(msgspec.Struct, frozen=True):
    """``failed/FILE.error.json``: why the queue gave the file up."""

    id: str
    file: str
    reason: str
    attempts: int
    lines: list[int]
    """Numbers of the lines to blame, from 1; empty if none in particular."""
    traceback: str | None


def fitting(name: str) -> str:
    """Return the name, cut to ``LONGEST`` bytes if it is longer; a short ending such as ``.jsonl`` stays."""
    if len(name.encode()) <= LONGEST:
        return name
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > 16:
        stem, dot, ending = name, "", ""
    tail = dot + ending
    return stem.encode()[: LONGEST - len(tail.encode())].decode("utf-8", "ignore") + tail


def original(name: str) -> str:
    """Return the name that a payload had before the queue made it ``NAME~2``, as far as its name tells."""
    matched = _NUMBERED.fullmatch(name)
    return matched[1] if matched else name


class Folders:
    """The folders of one home. Changes go through :class:`Disk`; looking does not."""

    def __init__(self, home: Home, disk: Disk) -> None:
        self.home = home
        self.disk = disk
        self._hints: dict[tuple[Place, str], int] = {}

    def folder(self, place: Place) -> Path:
        """Return the folder of a place."""
        return self.home.inbox if place == "inbox" else self.home.queue / place

    def path(self, place: Place, name: str) -> Path:
        """Return where a payload of this name lies in a place."""
        return self.folder(place) / name

    def make(self, place: Place) -> None:
        """Make the folder of a place, if somebody took it away."""
        folder = self.folder(place)
        if not folder.exists():
            self.disk.mkdir(folder.parent, exist_ok=True)
            self.disk.mkdir(folder, exist_ok=True)

    def relative(self, path: Path) -> str:
        """Return a path below the home as text that a row can hold."""
        return printable(str(path.relative_to(self.home.root)))

    def absolute(self, text: str) -> Path:
        """Return the path that :meth:`relative` was given; one that was not UTF-8 is not found again."""
        return self.home.root / text

    def free_name(self, place: Place, file: str, taken: Callable[[Place, str], bool]) -> str:
        """Return the name under which ``file`` can go to ``place``: itself, or the first of ``~2``, ``~3``... that
        is free.

        ``taken`` tells of names that rows have reserved; the folder itself is asked as well.
        """
        base = fitting(file)
        if not self._occupied(place, base, taken):
            return base
        if len(self._hints) > _HINTS:
            self._hints.clear()
        # A thousand files of one name would otherwise each try all suffixes before its own.
        number = self._hints.get((place, base), 2)
        while self._occupied(place, f"{base}~{number}", taken):
            number += 1
        self._hints[place, base] = number + 1
        return f"{base}~{number}"

    def to_inbox(self, path: Path, priority: Priority) -> Path:
        """Move a file of unknown content to the inbox, where it settles and is validated; its priority goes with it."""
        folder = self.home.inbox / priority
        self.disk.mkdir(folder, exist_ok=True)
        target = folder / original(path.name)
        if self.is_copy(target, path):
            self.disk.unlink(path)
            return target
        if os.path.lexists(target):
            folder = folder / secrets.token_hex(8)
            self.disk.mkdir(folder)
            target = folder / target.name
        self.disk.rename(path, target)
        return target

    def stamp(self, path: Path) -> Stamp | None:
        """Return size and time of a payload, or None if there is no regular file of that name."""
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stamp(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None

    def no_file(self, path: Path) -> os.stat_result | None:
        """Return what stands at a path that is neither a regular file nor nothing: a link, a pipe, a device."""
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if stat.S_ISREG(found.st_mode) else found

    def are_apart(self) -> bool:
        """Say whether the folders, or those in the inbox, lie on more than one file system."""
        inboxes = [Path(parent) for parent, _, _ in os.walk(self.home.inbox)]
        return len({folder.stat().st_dev for folder in [*map(self.folder, PLACES), *inboxes]}) > 1

    def is_copy(self, copy: Path, source: Path) -> bool:
        """Say whether ``copy`` was made of ``source`` by a move to another file system that has not removed it yet.

        Within one file system there are no such copies: two files that look the same there are two.
        """
        one, other = self.stamp(source), self.stamp(copy)
        if one is None or other is None or one.bytes != other.bytes:
            return False
        if abs(one.mtime_ns - other.mtime_ns) >= _COARSEST_NS or source.lstat().st_dev == copy.lstat().st_dev:
            return False
        return self.sha256(source) == self.sha256(copy)

    def sha256(self, path: Path) -> str:
        """Read a file and return its digest."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def payloads(self, place: Place) -> set[str]:
        """Return the names of all payloads in a folder: regular files, neither hidden nor error reports."""
        with os.scandir(self.folder(place)) as entries:
            names = {entry.name for entry in entries if entry.is_file(follow_symlinks=False) and entry.name[0] != "."}
        return {name for name in names if not name.endswith(ERROR_SUFFIX)} if place == "failed" else names

    def reports(self) -> set[str]:
        """Return the payload names that ``failed/`` has an error report for."""
        with os.scandir(self.folder("failed")) as entries:
            return {entry.name.removesuffix(ERROR_SUFFIX) for entry in entries if entry.name.endswith(ERROR_SUFFIX)}

    def probe(self) -> None:
        """Write a page into each folder and remove it, to find out whether that succeeds. Raises what the disk says."""
        for place in PLACES:
            if place != "inbox":
                path = self.path(place, f".probe.{secrets.token_hex(6)}.tmp")
                try:
                    self.disk.write(path, bytes(_PAGE))
                finally:
                    self.disk.unlink(path, missing_ok=True)

    def unfinished(self, place: Place) -> list[Path]:
        """Return what a process that died while it wrote a report, or copied a payload, left behind."""
        with os.scandir(self.folder(place)) as entries:
            return [Path(entry.path) for entry in entries if _UNFINISHED.fullmatch(entry.name)]

    def report_path(self, name: str) -> Path:
        """Return the path of the error report of a payload in ``failed/``."""
        return self.path("failed", name + ERROR_SUFFIX)

    def write_report(self, name: str, report: ErrorReport) -> None:
        """Make the error report durable. To be done before its payload arrives."""
        data = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
        self.make("failed")
        self.disk.replace(self.report_path(name), data)

    def _occupied(self, place: Place, name: str, taken: Callable[[Place, str], bool]) -> bool:
        if place == "failed" and (name.endswith(ERROR_SUFFIX) or os.path.lexists(self.report_path(name))):
            return True
        return os.path.lexists(self.path(place, name)) or taken(place, name)
