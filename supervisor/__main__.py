"""``python -P -m supervisor``: run a tree as a program. First of all, make sure that it is our tree."""

from __future__ import annotations

import sys
from pathlib import Path

_FOREIGN = ("supervisord.py", "supervisorctl.py", "rpcinterface.py")


def _clash() -> str | None:
    """Say what is wrong with the package that was imported, or None. Supervisord installs one of the same name."""
    package = sys.modules["supervisor"]
    folder = Path(__file__).parent
    if not hasattr(package, "SupervisorSpec") or any((folder / name).exists() for name in _FOREIGN):
        return (
            f"the package 'supervisor' in {folder} is mixed with, or is, that of supervisord (PyPI's 'supervisor'): "
            "install stokehold in a virtual environment of its own, without 'supervisor'"
        )
    return None


if __name__ == "__main__":
    if clash := _clash():
        sys.stderr.write(f"stokehold: {clash}\n")
        sys.exit(78)

    from supervisor.binary import main

    main(sys.argv[1:])
