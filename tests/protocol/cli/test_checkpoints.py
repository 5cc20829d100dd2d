"""``checkpoints``: what is whole, and what is damaged and where, with no daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.home import Home
from protocol.records import MANIFEST
from tests.protocol.cli import homes
from tests.protocol.cli.conftest import Run


@pytest.fixture
def two(home: Home) -> tuple[str, str]:
    """Two whole checkpoints; HEAD names the second."""
    first = homes.checkpoint(home, 10)
    second = homes.checkpoint(home, 20, parent=first)
    homes.head(home, second, None)
    return first, second


def test_list_is_newest_first(run: Run, home: Home, two: tuple[str, str]) -> None:
    first, second = two
    rows = json.loads(run("checkpoints", "list", "--json", "--home", home.root).stdout)
    weight = sum(path.stat().st_size for path in (home.checkpoints / second).iterdir())
    assert rows[0] == {
        "name": second, "step": 20, "parent": first, "bytes": weight, "created_at": "2026-03-04T05:06:27Z",
        "head": True, "valid": True,
    }  # fmt: skip
    assert (rows[1]["name"], rows[1]["head"], rows[1]["valid"]) == (first, False, True)
    out = run("checkpoints", "list", "--home", home.root).stdout.splitlines()
    assert "HEAD" in out[1] and "HEAD" not in out[2]


def test_temporary_folders_are_not_listed(run: Run, home: Home, two: tuple[str, str]) -> None:
    (home.checkpoints / ".tmp-step-00000030-0000001e").mkdir()
    (home.checkpoints / ".trash-step-00000001-00000001").mkdir()
    assert len(json.loads(run("checkpoints", "list", "--json", "--home", home.root).stdout)) == 2
    assert run("checkpoints", "verify", "--home", home.root).returncode == 0


def test_verify_of_whole_checkpoints(run: Run, home: Home, two: tuple[str, str]) -> None:
    done = run("checkpoints", "verify", "--home", home.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [two[1], two[0]]
    assert json.loads(run("checkpoints", "verify", "--json", "--home", home.root).stdout)[0] == {
        "name": two[1], "valid": True, "damage": [],
    }  # fmt: skip


def flip(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"w" * 9 + b"x")


def shorten(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"w" * 9)


def lose(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def unmark(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def tear(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-20])


def swap(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").mkdir()


@pytest.mark.parametrize(
    ("harm", "named", "seen_by_list"),
    [
        (flip, "weights.safetensors", False),
        (shorten, "weights.safetensors", True),
        (lose, "weights.safetensors", True),
        (swap, "weights.safetensors", True),
        (unmark, MANIFEST, True),
        (tear, MANIFEST, True),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_verify_names_what_is_damaged_and_exits_1(
    run: Run, home: Home, two: tuple[str, str], harm: Callable[[Path], None], named: str, seen_by_list: bool
) -> None:
    harm(home.checkpoints / two[0])
    done = run("checkpoints", "verify", "--home", home.root)
    assert done.returncode == 1
    assert two[0] in done.stderr and named in done.stderr
    assert two[1] not in done.stderr
    assert two[1] in done.stdout
    result = {
        row["name"]: row for row in json.loads(run("checkpoints", "verify", "--json", "--home", home.root).stdout)
    }
    assert result[two[1]]["valid"]
    assert not result[two[0]]["valid"]
    assert named in result[two[0]]["damage"][0]
    assert run("checkpoints", "verify", two[1], "--home", home.root).returncode == 0
    rows = json.loads(run("checkpoints", "list", "--json", "--home", home.root).stdout)
    assert [row["valid"] for row in rows] == [True, not seen_by_list]


def test_one_of_another_lineage_is_whole_but_not_valid(run: Run, home: Home, two: tuple[str, str]) -> None:
    stranger = homes.checkpoint(home, 30, lineage="two")
    rows = json.loads(run("checkpoints", "list", "--json", "--home", home.root).stdout)
    assert [(row["name"], row["valid"]) for row in rows] == [(stranger, False), (two[1], True), (two[0], True)]
    assert run("checkpoints", "verify", "--home", home.root).returncode == 0


def test_a_head_without_its_checkpoint_is_damage(run: Run, home: Home, two: tuple[str, str]) -> None:
    homes.head(home, "step-00000099-00000063", None)
    done = run("checkpoints", "verify", "--home", home.root)
    assert done.returncode == 1
    assert "step-00000099-00000063" in done.stderr


def test_an_empty_home_and_an_unknown_name(run: Run, home: Home) -> None:
    assert json.loads(run("checkpoints", "list", "--json", "--home", home.root).stdout) == []
    assert run("checkpoints", "verify", "--home", home.root).returncode == 0
    done = run("checkpoints", "verify", "step-00000099-00000063", "--home", home.root)
    assert done.returncode == 1
    assert "stokehold checkpoints list" in done.stderr
