"""``submit``: in the inbox whole or not at all, accepted in argument order, refused with the lines."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import islice
from pathlib import Path

import pytest

from protocol.cli.inbox_copy import put
from protocol.home import Home
from protocol.ids import new_ids
from tests.protocol.cli.conftest import Run


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{name}.jsonl" for name in ("one", "two", "three")]
    for path in made:
        path.write_text('{"text": "x"}\n')
    return made


def test_prints_the_ids_in_argument_order(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], files: list[Path]
) -> None:
    done = run("submit", *files, "--home", home.root)
    assert done.returncode == 0, done.stderr
    ids = done.stdout.split()
    assert len(ids) == 3
    assert all(len(id) == 26 and id == id.lower() and id.isalnum() for id in ids)
    assert ids == sorted(ids)
    asked = [json.loads(line)[1] for line in (home.root / "asked").read_text().splitlines()]
    assert [message["submit_id"] for message in asked] == ids
    assert sorted(path.name for path in home.line("normal").iterdir()) == sorted(path.name for path in files)
    assert list(home.inbox.iterdir()) == []
    assert all(path.exists() for path in files)


def test_json_and_the_socket_alone(run: Run, home: Home, daemon: subprocess.Popen[bytes], files: list[Path]) -> None:
    done = run("submit", files[0], "--json", "--socket", home.socket)
    (row,) = json.loads(done.stdout)
    assert (row["file"], row["state"]) == ("one.jsonl", "queued")


def test_a_refused_file_exits_1_with_its_lines(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], files: list[Path]
) -> None:
    files[1].write_text("bad\n")
    done = run("submit", *files, "--home", home.root)
    assert done.returncode == 1
    assert len(done.stdout.split()) == 2  # the good ones are queued all the same
    assert "two.jsonl: 2 bad lines" in done.stderr
    assert "lines 2, 5" in done.stderr
    assert str(home.failed / "two.jsonl~2.error.json") in done.stderr


def test_wait(run: Run, home: Home, daemon: subprocess.Popen[bytes], files: list[Path]) -> None:
    done = run("submit", files[0], "--wait", "--home", home.root)
    assert done.returncode == 0
    assert "trained, 7 samples in 12 steps, loss 5.250 → 2.500" in done.stderr
    (row,) = json.loads(run("submit", files[1], "--wait", "--json", "--home", home.root).stdout)
    assert row["finished"]["outcome"] == "trained"


def test_wait_for_a_job_that_fails_exits_1(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], files: list[Path]
) -> None:
    files[0].write_text("explode\n")
    done = run("submit", files[0], "--wait", "--home", home.root)
    assert done.returncode == 1
    assert len(done.stdout.split()) == 1
    assert "failed" in done.stderr


@pytest.mark.parametrize("wrong", ["missing", "folder", "fifo", "unfinished.tmp"])
def test_what_is_no_data_file_is_refused_before_anything_is_copied(
    run: Run, home: Home, daemon: subprocess.Popen[bytes], files: list[Path], tmp_path: Path, wrong: str
) -> None:
    path = tmp_path / wrong
    if wrong == "folder":
        path.mkdir()
    elif wrong == "fifo":
        os.mkfifo(path)
    elif wrong.endswith(".tmp"):
        path.touch()
    done = run("submit", files[0], path, "--home", home.root)
    assert done.returncode == 1
    assert done.stdout == ""
    assert str(path) in done.stderr and "nothing was submitted" in done.stderr
    assert list(home.inbox.iterdir()) == [] == list(home.line("normal").iterdir())


def test_without_a_daemon_nothing_is_copied(run: Run, home: Home, files: list[Path]) -> None:
    done = run("submit", files[0], "--home", home.root)
    assert done.returncode == 3
    assert list(home.inbox.iterdir()) == []


def test_the_name_in_the_inbox_carries_id_and_priority(home: Home, files: list[Path]) -> None:
    (id,) = islice(new_ids(), 1)
    path = put(files[0], home.inbox, id, "high")
    assert path == home.inbox / f"@{id}-high@one.jsonl"
    assert path.read_bytes() == files[0].read_bytes()
    assert [entry.name for entry in home.inbox.iterdir()] == [path.name]


def test_a_copy_that_fails_leaves_nothing(home: Home, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        put(tmp_path / "missing", home.inbox, "0" * 26, "low")
    with pytest.raises(IsADirectoryError):
        put(tmp_path, home.inbox, "0" * 26, "low")
    assert list(home.inbox.iterdir()) == []


def test_ids_rise_also_within_a_millisecond() -> None:
    ids = list(islice(new_ids(), 5000))
    assert ids == sorted(set(ids))
    assert all(len(id) == 26 and id[0] in "01234567" for id in ids)
