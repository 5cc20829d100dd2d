"""SQLite's WAL-reset race: a rare corruption when two connections write to one database in WAL mode."""

from __future__ import annotations

from _sqlite3 import sqlite_version  # the module around it takes ten times as long to import

from protocol.cli.doctor.finding import Finding


def check() -> list[Finding]:
    """Is this SQLite one that has the race?"""
    major, minor, patch = map(int, sqlite_version.split("."))
    return [judge((major, minor, patch))]


def judge(version: tuple[int, int, int]) -> Finding:
    """Judge one version. Fixed in 3.51.3, and in 3.50.7 and 3.44.6 on their branches; there since 3.7.0."""
    shown = ".".join(map(str, version))
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    if fixed or version < (3, 7, 0):
        return Finding("ok", f"SQLite {shown} has no WAL-reset race")
    return Finding(
        "note",
        f"SQLite {shown} has the WAL-reset race; it needs two connections, and stokehold keeps one",
        "let no other program open state.sqlite3 while the daemon runs; or use SQLite 3.51.3 or newer",
    )
