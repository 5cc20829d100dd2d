"""``stokehold models``: the published versions, read straight from the home, so that no daemon is needed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from protocol.cli.commands import subcommands
from protocol.cli.failure import CommandFailed
from protocol.cli.folder import opened_home, say_damage
from protocol.cli.moment import when
from protocol.cli.paint import paint, size
from protocol.cli.plain import print_json
from protocol.cli.table import LEFT, RIGHT, print_table
from protocol.home import Home
from protocol.records import MANIFEST, VERSION_NAME, NewerFormat, Unreadable, VersionManifest, read_record


def arguments(parser: argparse.ArgumentParser) -> None:
    words = subcommands(parser, list="the versions, newest first", show="one version, with the jobs that it holds")
    words["show"].add_argument("version", nargs="?", default="current", metavar="VERSION", help="a number, or: current")


def run(options: argparse.Namespace) -> int:
    """List the versions, or show one."""
    home, head = opened_home(options)
    current = head.version if head else None
    if options.action == "show":
        return _show(home, current, options)
    manifests, damaged = versions(home)
    rows = [_row(manifest, current) for manifest in reversed(manifests)]
    say_damage(damaged)
    if options.json:
        print_json(rows)
        return 0
    if not rows:
        print("nothing is published yet")
        return 0
    print_table(
        [("version", RIGHT), ("", LEFT), ("kind", LEFT), ("step", RIGHT), ("jobs", RIGHT), ("eval loss", RIGHT),
         ("created", LEFT), ("weights", LEFT)],
        [
            [str(row["version"]), "current" if row["current"] else "", row["kind"], f"{row['step']:,}",
             f"{len(row['jobs']):,}", "" if row["eval_loss"] is None else f"{row['eval_loss']:.4f}",
             when(manifest.created_at), row["weights_sha256"][:12]]
            for row, manifest in zip(rows, reversed(manifests), strict=True)
        ],
    )  # fmt: skip
    return 0


def versions(home: Home) -> tuple[list[VersionManifest], list[str]]:
    """Return the manifests of all versions, oldest first, and what is wrong with those that cannot be read."""
    manifests, damaged = [], []
    folders = sorted(home.versions.iterdir()) if home.versions.is_dir() else []
    for folder in folders:
        if not VERSION_NAME.fullmatch(folder.name):
            continue
        try:
            manifests.append(read_record(folder / MANIFEST, VersionManifest))
        except FileNotFoundError:
            # A folder without a manifest is not a version: it is being written, or was when the power went.
            continue
        except (Unreadable, NewerFormat) as error:
            damaged.append(str(error))
    return manifests, damaged


def _row(manifest: VersionManifest, current: int | None) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "kind": manifest.kind,
        "step": manifest.step,
        "weights_sha256": manifest.weights_sha256,
        "eval_loss": manifest.eval_loss,
        "jobs": [entry.job for entry in manifest.ledger.committed],
        "created_at": msgspec.to_builtins(manifest.created_at),
        "current": manifest.version == current,
    }


def _show(home: Home, current: int | None, options: argparse.Namespace) -> int:
    manifest, folder = _find(home, current, options.version)
    if options.json:
        print_json(_row(manifest, current) | {"path": str(folder), "manifest": msgspec.to_builtins(manifest)})
        return 0
    mark = "  current" if manifest.version == current else ""
    print(paint(f"version {manifest.version}", "bold") + paint(mark, "green"))
    facts = [
        ("folder", str(folder)),
        ("kind", manifest.kind),
        ("made", when(manifest.created_at)),
        ("step", f"{manifest.step:,}"),
        ("from", f"{manifest.base.source}, {manifest.base.method}"),
        ("weights", manifest.weights_sha256),
        ("files", f"{len(manifest.files)}, {size(sum(file.bytes for file in manifest.files.values()))}"),
        ("eval loss", "not measured" if manifest.eval_loss is None else f"{manifest.eval_loss:.4f}"),
    ]
    for name, text in facts:
        print(f"  {paint(f'{name:<11}', 'dim')}{text}")
    if manifest.ledger.committed:
        print()
        print_table(
            [("job", LEFT), ("file", LEFT), ("samples", RIGHT), ("steps", RIGHT), ("last loss", RIGHT)],
            [
                [entry.job, entry.file, f"{entry.stats.rows:,}", f"{entry.stats.steps:,}",
                 "" if entry.stats.last_loss is None else f"{entry.stats.last_loss:.4f}"]
                for entry in manifest.ledger.committed
            ],
            shrink=1,
        )  # fmt: skip
    for job in manifest.rolled_back:
        print(f"rolled back: {job}")
    return 0


def _find(home: Home, current: int | None, wanted: str) -> tuple[VersionManifest, Path]:
    if wanted == "current":
        if current is None:
            raise CommandFailed("nothing is published yet", "see what the daemon does: stokehold status")
        number = current
    else:
        try:
            number = int(wanted)
        except ValueError:
            raise CommandFailed(f"{wanted!r} is not a version", "say a number, or: current") from None
    folder = home.version(number)
    try:
        return read_record(folder / MANIFEST, VersionManifest), folder
    except FileNotFoundError:
        raise CommandFailed(f"there is no version {number}", "see: stokehold models list") from None
    except (Unreadable, NewerFormat) as error:
        raise CommandFailed(str(error), "see: stokehold doctor") from error
