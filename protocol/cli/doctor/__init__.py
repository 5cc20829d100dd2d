"""``stokehold doctor``: looks for trouble, one check a file, and says of each what to do about it.

Needs no daemon, and changes nothing. With no home named, the checks of a home are left out.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING

from protocol.cli.doctor.finding import Finding
from protocol.cli.failure import FAILED
from protocol.cli.folder import home_folder
from protocol.cli.paint import clean, paint
from protocol.cli.place import find_home
from protocol.cli.plain import print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.home import Home

OF_ENVIRONMENT = ("clash", "training", "sqlite", "inotify", "orphans")
OF_HOME = ("filesystem", "permissions", "disk", "head")

_MARKS = {"ok": ("✓", "green"), "note": ("·", "blue"), "warning": ("!", "yellow"), "trouble": ("✗", "red")}


def arguments(parser: argparse.ArgumentParser) -> None:
    """``doctor`` has no options of its own."""


def run(options: argparse.Namespace) -> int:
    """Run every check; exit 1 if one found trouble."""
    home = _home(options)
    findings = [(name, finding) for name in OF_ENVIRONMENT for finding in _check(name)()]
    if home is not None:
        findings += [(name, finding) for name in OF_HOME for finding in _check_home(name)(home)]
    if options.json:
        print_json([{"check": name, **finding._asdict()} for name, finding in findings])
    else:
        _print(findings)
        if home is None:
            print(paint("no home named: nothing of a home was looked at (--home DIR)", "dim"))
    return FAILED if any(finding.level == "trouble" for _, finding in findings) else 0


def _home(options: argparse.Namespace) -> Home | None:
    if find_home(options.home) is None:
        return None
    from protocol.home import Home

    return Home(home_folder(options))


def _check(name: str) -> Callable[[], list[Finding]]:
    check: Callable[[], list[Finding]] = import_module(f"protocol.cli.doctor.{name}").check
    return check


def _check_home(name: str) -> Callable[[Home], list[Finding]]:
    check: Callable[[Home], list[Finding]] = import_module(f"protocol.cli.doctor.{name}").check
    return check


def _print(findings: list[tuple[str, Finding]]) -> None:
    for name, finding in findings:
        mark, colour = _MARKS[finding.level]
        print(f"{paint(mark, 'bold', colour)} {paint(f'{name:<12}', 'dim')}{clean(finding.what)}")
        if finding.remedy:
            print(f"{'':<14}{paint('→', 'dim')} {clean(finding.remedy)}")
