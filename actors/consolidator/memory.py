"""``HOME/consolidation.json``: what the night's work remembers from daemon to daemon."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from actors.consolidator.schedule import Plan
from protocol.home import Home
from protocol.records import MANIFEST, NewerFormat, Unreadable, VersionManifest, read_head, read_record
from supervisor import Disk

FORMAT = 1


class _File(msgspec.Struct, frozen=True):
    plan: Plan
    format: int = FORMAT


class _Format(msgspec.Struct, frozen=True):
    format: int


def path(home: Home) -> Path:
    """Return the file's path."""
    return home.root / "consolidation.json"


def recall(home: Home) -> Plan | None:
    """Return what is remembered; None in a home that remembers nothing.

    Raises:
        NewerFormat: a newer stokehold wrote the file.
        Unreadable: it is torn, or not ours.
    """
    try:
        data = path(home).read_bytes()
    except FileNotFoundError:
        return None
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number > FORMAT:
            raise NewerFormat(f"{path(home)} has format {number}; this version reads up to {FORMAT}: run the newer one")
        return msgspec.json.decode(data, type=_File).plan
    except msgspec.DecodeError as error:
        raise Unreadable(f"{path(home)}: {error}; delete it, and the schedule begins anew") from error


def promoted_at(home: Home) -> datetime | None:
    """Return when the published version was made, if it is the work of a consolidation.

    Told by HEAD itself, it is true even if nobody lived to remember that the work was done.
    """
    try:
        head = read_head(home)
        if head is None or head.version is None:
            return None
        manifest = read_record(home.version(head.version) / MANIFEST, VersionManifest)
    except (FileNotFoundError, NewerFormat, Unreadable):
        return None
    return manifest.created_at if manifest.kind in ("consolidated", "snapshot") else None


def remember(home: Home, disk: Disk, plan: Plan) -> None:
    """Make it durable."""
    disk.replace(path(home), msgspec.json.format(msgspec.json.encode(_File(plan)), indent=1) + b"\n")
