"""What the name of a file in the inbox says."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

import pytest

from protocol.inbox_names import is_hidden, read_name, submitted_name

ID = "01jdh2x9a7k3c5e8f0g1h2j3k4"


@pytest.mark.parametrize("name", [".a.jsonl", "a.jsonl.tmp", "a.part", "a.jsonl~", ".git", f".@{ID}-high@a.jsonl.tmp"])
def test_names_of_unfinished_files_are_left_alone(name: str) -> None:
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.tmp.jsonl", "a~2.jsonl", "part.jsonl", f"@{ID}-high@a.jsonl"])
def test_other_names_are_taken(name: str) -> None:
    assert not is_hidden(name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jsonl", ("a.jsonl", "normal", None)),
        ("high/a.jsonl", ("a.jsonl", "high", None)),
        ("low/deep/er/a.jsonl", ("a.jsonl", "low", None)),
        ("other/high/a.jsonl", ("a.jsonl", "normal", None)),
        ("high", ("high", "normal", None)),
        (f"@{ID}-high@a.jsonl", ("a.jsonl", "high", ID)),
        (f"low/@{ID}-normal@a.jsonl", ("a.jsonl", "normal", ID)),
        (f"@{ID}-high@@x-low@b.jsonl", ("@x-low@b.jsonl", "high", ID)),
        (f"@{ID[1:]}-high@a.jsonl", (f"@{ID[1:]}-high@a.jsonl", "normal", None)),
        (f"@{ID}-urgent@a.jsonl", (f"@{ID}-urgent@a.jsonl", "normal", None)),
        (f"@{ID}-high@", (f"@{ID}-high@", "normal", None)),
        (f"@{ID}-high@a\nb.jsonl", ("a\nb.jsonl", "high", ID)),
    ],
)
def test_place_and_name_say_priority_and_id(path: str, expected: tuple[str, str, str | None]) -> None:
    named = read_name(PurePath(path))
    assert (named.file, named.priority, named.submit_id) == expected


def test_a_name_that_is_not_utf8_is_shown_with_its_bytes() -> None:
    assert read_name(PurePath(os.fsdecode(b"caf\xe9.jsonl"))).file == "caf\\xe9.jsonl"


@pytest.mark.parametrize(
    "name", ["x" * 250 + ".jsonl", "ä" * 120 + ".jsonl", "." + "y" * 254, os.fsdecode(b"\xff" * 250)]
)
def test_a_long_name_is_cut_to_what_a_folder_takes(tmp_path: Path, name: str) -> None:
    id = "0" * 26
    cut = submitted_name(name, id, "normal")
    (tmp_path / f".{cut}.tmp").touch()
    assert cut.startswith(f"@{id}-normal@")
    assert not name.endswith(".jsonl") or cut.endswith(".jsonl")
    assert cut.partition("@normal@")[2][:3] in name


@pytest.mark.parametrize("name", ["a.jsonl", "@x@.jsonl", os.fsdecode(b"caf\xe9.jsonl"), "a\nb"])
def test_what_was_submitted_is_read_again(name: str) -> None:
    named = read_name(PurePath(submitted_name(name, ID, "high")))
    assert (named.file, named.priority, named.submit_id) == (read_name(PurePath(name)).file, "high", ID)
