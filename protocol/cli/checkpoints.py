"""``stokehold checkpoints``: the resumable states, read straight from the home, so that no daemon is needed."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from protocol.cli.commands import subcommands
from protocol.cli.failure import FAILED, CommandFailed
from protocol.cli.folder import opened_home, say_damage
from protocol.cli.moment import when
from protocol.cli.paint import count, paint, size
from protocol.cli.plain import print_json
from protocol.cli.table import LEFT, RIGHT, print_table
from protocol.home import Home
from protocol.records import (
    CHECKPOINT_NAME,
    MANIFEST,
    CheckpointManifest,
    FileDigest,
    Head,
    NewerFormat,
    Unreadable,
    read_record,
)


def arguments(parser: argparse.ArgumentParser) -> None:
    words = subcommands(
        parser,
        list="the checkpoints, newest first; whether each is whole goes by names and sizes",
        verify="read every byte again and compare it with the manifests",
    )
    words["verify"].add_argument("name", nargs="*", metavar="NAME", help="default: all")


def run(options: argparse.Namespace) -> int:
    """List the checkpoints, or verify them."""
    home, head = opened_home(options)
    return _verify(home, head, options) if options.action == "verify" else _list(home, head, options)


def folders(home: Home) -> list[Path]:
    """Return the folders that bear a checkpoint's name, newest first."""
    if not home.checkpoints.is_dir():
        return []
    found = (folder for folder in home.checkpoints.iterdir() if CHECKPOINT_NAME.fullmatch(folder.name))
    return sorted(found, reverse=True)


def damage(folder: Path, *, thorough: bool) -> tuple[CheckpointManifest | None, list[str]]:
    """Return the manifest of a checkpoint, if it can be read, and what is wrong with the folder.

    Args:
        thorough: compare every file's SHA-256, not only its size.
    """
    try:
        manifest = read_record(folder / MANIFEST, CheckpointManifest)
    except FileNotFoundError:
        return None, [f"{folder.name}: no {MANIFEST}; it was never finished"]
    except (Unreadable, NewerFormat) as error:
        return None, [str(error)]
    found = [f"{folder.name}: its manifest is that of {manifest.name}"] if manifest.name != folder.name else []
    for name, digest in manifest.files.items():
        if trouble := _trouble(folder / name, digest, thorough=thorough):
            found.append(f"{folder.name}/{name}: {trouble}")
    return manifest, found


def _trouble(path: Path, digest: FileDigest, *, thorough: bool) -> str | None:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return "is not a file"
        if found.st_size != digest.bytes:
            return f"has {found.st_size:,} bytes, its manifest says {digest.bytes:,}"
        if thorough:
            import hashlib

            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest.sha256:
                    return "its SHA-256 is not that of the manifest"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _list(home: Home, head: Head | None, options: argparse.Namespace) -> int:
    rows = list(_rows(home, head))
    if options.json:
        print_json(rows)
        return 0
    if not rows:
        print("no checkpoint yet")
        return 0
    print_table(
        [("name", LEFT), ("", LEFT), ("step", RIGHT), ("size", RIGHT), ("created", LEFT), ("parent", LEFT), ("", LEFT)],
        [
            [row["name"], "HEAD" if row["head"] else "", "" if row["step"] is None else f"{row['step']:,}",
             size(row["bytes"]), when(row["created_at"]), row["parent"] or "", "" if row["valid"] else "not valid"]
            for row in rows
        ],
    )  # fmt: skip
    return 0


def _rows(home: Home, head: Head | None) -> Iterator[dict[str, Any]]:
    for folder in folders(home):
        manifest, found = damage(folder, thorough=False)
        yield {
            "name": folder.name,
            "step": manifest.step if manifest else None,
            "parent": manifest.parent if manifest else None,
            "bytes": _bytes(folder),
            "created_at": msgspec.to_builtins(manifest.created_at) if manifest else None,
            "head": head is not None and head.checkpoint == folder.name,
            # A checkpoint of another lineage is whole, and still not one to go on from.
            "valid": bool(manifest and not found and (head is None or manifest.lineage == head.lineage)),
        }


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:  # retention is at work
            continue
    return total


class _Result(NamedTuple):
    """What came of verifying one checkpoint."""

    name: str
    damage: list[str]


def _verify(home: Home, head: Head | None, options: argparse.Namespace) -> int:
    known = {folder.name: folder for folder in folders(home)}
    for name in options.name:
        if name not in known:
            raise CommandFailed(f"there is no checkpoint {name}", "see: stokehold checkpoints list")
    results: list[_Result] = []
    for name in options.name or known:
        manifest, found = damage(known[name], thorough=True)
        if found and not known[name].is_dir():  # retention removed it while we read
            continue
        results.append(_Result(name, found))
        if not options.json and manifest and not found:
            total = sum(file.bytes for file in manifest.files.values())
            print(f"{name}  {paint('whole', 'green')}  {count(len(manifest.files), 'file')}, {size(total)}")
    if head and head.checkpoint and head.checkpoint not in known and not options.name:
        results.append(_Result(head.checkpoint, [f"{head.checkpoint}: HEAD names it, and it is gone"]))
    if options.json:
        print_json([{"name": r.name, "valid": not r.damage, "damage": r.damage} for r in results])
    broken = [result for result in results if result.damage]
    say_damage(text for result in broken for text in result.damage)
    if broken:
        raise CommandFailed(
            f"damaged: {', '.join(result.name for result in broken)} ({len(broken)} of {len(results)})",
            "the daemon goes on from the newest whole one by itself; see: stokehold checkpoints list",
            FAILED,
        )
    if not results and not options.json:
        print("no checkpoint yet")
    return 0
