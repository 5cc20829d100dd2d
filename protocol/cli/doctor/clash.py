"""PyPI's ``supervisor`` (supervisord) installs a package of the same name as ours; only one of the two can work."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from protocol.cli.doctor.finding import Finding

REMEDY = (
    "install stokehold in an environment of its own; or here: pip uninstall supervisor, "
    "then pip install --force-reinstall stokehold (the uninstall takes a file of ours with it)"
)


def check() -> list[Finding]:
    """Is supervisord installed here, and is the package that ``stokehold run`` starts ours?"""
    if theirs := _installed():
        return [Finding("trouble", f"PyPI's {theirs} (supervisord) is installed beside stokehold", REMEDY)]
    spec = find_spec("supervisor")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    if not any((folder / "binary.py").is_file() and (folder / "__init__.py").is_file() for folder in folders):
        return [Finding("trouble", "the package 'supervisor' that Python finds is not stokehold's, or is torn", REMEDY)]
    return [Finding("ok", "the package 'supervisor' is stokehold's")]


def _installed() -> str | None:
    """Return name and version of the distribution: what ``importlib.metadata`` would say after a longer import."""
    folders = (Path(folder) for folder in dict.fromkeys(sys.path))
    found = (path for folder in folders if folder.is_dir() for path in folder.glob("supervisor-*.*-info"))
    return next((path.stem.replace("-", " ", 1) for path in found), None)
