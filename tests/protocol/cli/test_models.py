"""``models``: the published versions, with no daemon."""

from __future__ import annotations

import json

from protocol.home import Home
from protocol.records import MANIFEST
from tests.protocol.cli import homes
from tests.protocol.cli.conftest import Run


def test_list_is_newest_first_with_the_rows_that_scripts_rely_on(run: Run, home: Home) -> None:
    homes.version(home, 1, "base")
    homes.version(home, 2, "trained", "a", "b", eval_loss=2.25)
    homes.version(home, 3, "consolidated", "a", "b")
    homes.head(home, None, 2)
    rows = json.loads(run("models", "list", "--json", "--home", home.root).stdout)
    assert [row["version"] for row in rows] == [3, 2, 1]
    assert rows[1] == {
        "version": 2, "kind": "trained", "step": 20, "weights_sha256": "2" * 64, "eval_loss": 2.25, "jobs": ["a", "b"],
        "created_at": "2026-03-04T07:06:07Z", "current": True,
    }  # fmt: skip
    assert [row["current"] for row in rows] == [False, True, False]
    out = run("models", "list", "--home", home.root).stdout.splitlines()
    assert "current" in out[2] and "2.2500" in out[2]


def test_what_is_being_written_or_thrown_away_is_not_listed(run: Run, home: Home) -> None:
    homes.version(home, 1, "base")
    home.version(2).mkdir()
    homes.version(home, 3, "trained").rename(home.versions / ".trash-000003")
    homes.version(home, 4, "trained").rename(home.versions / ".tmp-4")
    assert [row["version"] for row in json.loads(run("models", "list", "--json", "--home", home.root).stdout)] == [1]


def test_an_empty_home(run: Run, home: Home) -> None:
    assert json.loads(run("models", "list", "--json", "--home", home.root).stdout) == []
    assert run("models", "list", "--home", home.root).returncode == 0
    assert run("models", "show", "--home", home.root).returncode == 1


def test_a_torn_manifest_is_told_and_the_others_are_listed(run: Run, home: Home) -> None:
    homes.version(home, 1, "base")
    (homes.version(home, 2, "trained") / MANIFEST).write_bytes(b'{"format": 1, "ver')
    (homes.version(home, 3, "trained") / MANIFEST).write_bytes(b'{"format": 99}')
    done = run("models", "list", "--json", "--home", home.root)
    assert [row["version"] for row in json.loads(done.stdout)] == [1]
    assert "000002" in done.stderr
    assert "run the newer stokehold" in done.stderr


def test_show(run: Run, home: Home) -> None:
    homes.version(home, 1, "base")
    homes.version(home, 2, "trained", "a")
    homes.head(home, None, 2)
    shown = json.loads(run("models", "show", "--json", "--home", home.root).stdout)
    assert (shown["version"], shown["current"], shown["path"]) == (2, True, str(home.version(2)))
    assert shown["manifest"]["ledger"]["committed"][0]["job"] == "a"
    out = run("models", "show", "2", "--home", home.root).stdout
    assert "a.jsonl" in out and "2" * 64 in out and str(home.version(2)) in out
    assert "version 1" in run("models", "show", "1", "--home", home.root).stdout
    for unknown in ("7", "latest"):
        assert run("models", "show", unknown, "--home", home.root).returncode == 1


def test_a_home_that_is_not_there(run: Run, home: Home) -> None:
    done = run("models", "list", "--home", home.root / "missing")
    assert done.returncode == 1
    assert "stokehold init" in done.stderr
