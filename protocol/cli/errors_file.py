"""Reading ``FILE.error.json`` in ``queue/failed/``: which lines of a file were bad, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocol.cli.paint import clean

SHOWN = 20
"""Bad lines printed; the file itself has them all."""


def error_file(home: str | Path, job: str, file: str) -> Path | None:
    """Return the error report of a failed job, or None if there is none.

    It lies beside the payload and is named after it; when the name was taken or too long, the payload has another, and
    the id inside the report decides.
    """
    failed = Path(home, "queue", "failed")
    likely = failed / f"{file}.error.json"
    if _read(likely).get("id") == job:
        return likely
    others = failed.glob("*.error.json") if failed.is_dir() else ()
    return next((path for path in others if _read(path).get("id") == job), None)


def bad_lines(report: Path) -> list[str]:
    """Return what an error report says of each bad line, in words, at most ``SHOWN`` of them."""
    lines = _read(report).get("lines") or []
    told = [_told(line) for line in lines[:SHOWN]]
    return told + ([f"... and {len(lines) - SHOWN:,} more: {report}"] if len(lines) > SHOWN else [])


def _told(line: Any) -> str:
    if isinstance(line, dict):
        return f"line {line.get('line')}: {clean(str(line.get('reason', '')))}"
    return f"line {line}"


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
