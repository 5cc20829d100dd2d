"""Preview shows what the model will see, marks what it is trained on, and names the lines that are cut or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.tools import preview

ROWS = [
    '{"text": "All of this is trained."}',
    '{"prompt": "What is two and two?", "completion": " Four."}',
    '{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Good day."},'
    ' {"role": "user", "content": "And now?"}]}',
    "not json",
    json.dumps({"text": "long " * 100}),
    '{"text": ""}',
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(ROWS) + "\n")
    (tmp_path / "stokehold.toml").write_text("[training]\nmax_length = 32\n")
    return path


def ask(file: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    code = preview.main([str(file), "--home", str(file.parent), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def trained(sample: dict[str, Any]) -> str:
    return "".join(span["text"] for span in sample["spans"] if span["trained"])


def test_trained_tokens_are_marked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = ask(file, capsys)
    assert code == 1
    text, completion, chat = told["samples"]
    assert [sample["line"] for sample in told["samples"]] == [1, 2, 3]
    assert text["spans"][-1]["text"].endswith("is trained.<|end|>") and text["spans"][-1]["trained"]
    assert trained(completion) == " Four.<|end|>"
    assert trained(chat) == "Good day.<|end|>"
    for sample in told["samples"]:
        assert sum(span["tokens"] for span in sample["spans"]) == sample["tokens"]
        assert sum(span["tokens"] for span in sample["spans"] if span["trained"]) == sample["trained_tokens"]
        assert not sample["spans"][0]["trained"], "the first token is predicted from nothing"


def test_cut_and_refused_rows_are_counted_and_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = ask(file, capsys, "--rows", "9")
    assert (told["rows"], told["truncated"], told["refused"]) == (4, 1, 2)
    assert told["truncated_lines"] == [5]
    assert [bad["line"] for bad in told["refused_lines"]] == [4, 6]
    assert "not valid JSON" in told["refused_lines"][0]["reason"]
    assert "empty" in told["refused_lines"][1]["reason"]
    assert (told["samples"][-1]["tokens"], told["samples"][-1]["line"]) == (32, 5)
    assert told["samples"][-1]["cut"] > 50


def test_for_people(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview.main([str(file), "--home", str(file.parent), "--rows", "2"]) == 1
    out = capsys.readouterr().out
    assert "line 2: " in out and "line 3: " not in out
    assert "«" in out and " Four.<|end|>»" in out
    assert "4 rows, " in out
    assert "1 row cut to training.max_length: line 5" in out
    assert "2 rows refused:\n  line 4: not valid JSON" in out


def test_a_good_file_exits_0(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(ROWS[0])
    assert ask(file, capsys)[0] == 0


def test_control_characters_do_not_reach_the_terminal(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(json.dumps({"text": "evil \x1b[2J title"}))
    preview.main([str(file), "--home", str(file.parent)])
    assert "\x1b[2J" not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["missing file", "folder", "bad settings", "no such model"])
def test_what_cannot_be_read_is_told_in_words(file: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    path = {"missing file": file.with_name("gone"), "folder": file.parent}.get(what, file)
    if what == "bad settings":
        (file.parent / "stokehold.toml").write_text("[training]\nmax_lenght = 1\n")
    if what == "no such model":
        (file.parent / "stokehold.toml").write_text(f'[model]\nsource = "{file.parent}"\n')
    with pytest.raises(SystemExit) as caught:
        preview.main([str(path), "--home", str(file.parent)])
    assert caught.value.code == 1
    told = capsys.readouterr()
    assert not told.out
    assert {"bad settings": "max_length", "no such model": "model.source"}.get(what, path.name) in told.err
