"""Reading ``FILE.error.json`` in ``queue/failed/``: which lines of a file were bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHOWN = 20
"""Line numbers printed; the report has them all."""


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


def bad_lines(report: Path) -> str | None:
    """Return the numbers of the bad lines in words, or None. Why they are bad is told by the report's reason."""
    lines = _read(report).get("lines") or []
    if not lines:
        return None
    more = f" and {len(lines) - SHOWN:,} more" if len(lines) > SHOWN else ""
    return f"lines {', '.join(map(str, lines[:SHOWN]))}{more}" if len(lines) > 1 else f"line {lines[0]}"


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
