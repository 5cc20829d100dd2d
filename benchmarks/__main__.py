"""``make bench``: run every benchmark, one after another, and say which targets were met.

Exit 0: all were. 1: one was missed, or ended without a result.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def modules() -> list[str]:
    """Return the benchmarks: modules whose names begin with the row that they fill, as ``e1_status``."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if re.match(r"[a-z]\d+_", path.stem))


def run(module: str) -> bool:
    """Run one benchmark and pass its results on; return whether it met all of its targets."""
    command = [sys.executable, "-P", "-m", f"benchmarks.{module}"]
    done = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    print(done.stdout, end="", flush=True)
    if done.returncode or not results:
        print(f"{module}: ended with exit code {done.returncode} and {len(results)} results", flush=True)
        return False
    return all(result.get("met") or "skipped" in result for result in results)


def main() -> int:
    missed = [module for module in modules() if not run(module)]
    print(f"missed: {', '.join(missed)}" if missed else "every target is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
