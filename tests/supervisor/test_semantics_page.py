"""``docs/semantics.md`` is true to the tests: each one that it names exists, and each ported case stands on it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "semantics.md").read_text()
REFERENCE = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
CASES_OF_OTP = 93


def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions) and node.name.startswith("test_")}


def _section(title: str) -> str:
    (body,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(body)


def _rows(title: str) -> list[list[str]]:
    lines = [line for line in _section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_every_test_on_the_page_exists() -> None:
    named: dict[str, set[str]] = {}
    for file, test in REFERENCE.findall(PAGE):
        named.setdefault(file, set()).add(test)
    missing = {file: tests - _tests_in(HERE / file) for file, tests in named.items()}
    assert not any(missing.values()), missing


def test_every_ported_case_and_every_case_of_both_kinds_is_on_the_page() -> None:
    on_it = set(REFERENCE.findall(PAGE))
    files = [path for folder in ("otp", "conformance") for path in sorted((HERE / folder).glob("test_*.py"))]
    ported = {(f"{path.parent.name}/{path.name}", test) for path in files for test in _tests_in(path)}
    assert {file.split("/")[0] for file, _ in ported} == {"otp", "conformance"}
    assert ported <= on_it, ported - on_it


def test_every_guarantee_and_every_deviation_names_its_test() -> None:
    guarantees = re.split(r"^- ", _section("What holds"), flags=re.MULTILINE)[1:]
    assert len(guarantees) > 50
    for one in [*guarantees, *(row[-1] for row in _rows("Deviations"))]:
        assert REFERENCE.search(one), one


def test_every_case_of_otp_has_its_row() -> None:
    rows = _rows("OTP's cases")
    assert len({case for case, _, _ in rows}) == len(rows) == CASES_OF_OTP
    for case, here, rest in rows:
        reference = REFERENCE.match(rest)
        if here == "n/a":
            assert rest and reference is None, case
        else:
            assert here in ("ported", "differs"), case
            assert reference is not None and reference[2] == f"test_{case.strip('`')}", case
            assert (here == "differs") == bool(rest[reference.end() :].strip()), f"{case}: a difference has its reason"
    counts = [sum(here == kind for _, here, _ in rows) for kind in ("ported", "differs", "n/a")]
    told = re.findall(r"\b\d+\b", _section("OTP's cases").split("|")[0])
    assert [int(number) for number in told] == [CASES_OF_OTP, *counts]
