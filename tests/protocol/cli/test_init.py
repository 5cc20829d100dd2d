"""``init``: a home with its folders and its settings."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import msgspec

from protocol.cli.template import TEMPLATE
from protocol.config import CHILDREN, Config
from protocol.home import Home
from protocol.settings import Loaded, flat, load, marks
from tests.protocol.cli.conftest import Run


def test_makes_every_folder_and_sound_settings(run: Run, tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "home")
    done = run("init", home.root)
    assert done.returncode == 0, done.stderr
    assert all(folder.is_dir() for folder in home.folders)
    assert stat.S_IMODE(home.run.stat().st_mode) == 0o700
    assert load(home.settings).config == Config()
    assert run("config", "check", "--home", home.root).returncode == 0


def test_it_says_that_the_model_is_a_toy_until_one_is_named(run: Run, tmp_path: Path) -> None:
    """The first training stamps the model into the home: later is too late to hear of it."""
    said = run("init", tmp_path / "home").stdout
    assert "its model" in said
    assert "model.source" in said


def test_run_is_private_whatever_the_umask(run: Run, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert run("init", tmp_path / "home").returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "home" / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / "inbox").stat().st_mode) == 0o755


def test_the_template_names_every_setting_with_its_default(tmp_path: Path) -> None:
    loaded = uncommented(TEMPLATE.partition("# Restart policy")[0], tmp_path)
    assert flat(loaded.config) == flat(Config())
    given = {key for key, origin in loaded.origins.items() if origin != "default"}
    assert given == set(flat(Config()))


def test_the_restart_policies_of_the_template_are_all_there_are(tmp_path: Path) -> None:
    given = uncommented(TEMPLATE, tmp_path).config.supervision
    for child in ("training", "TrainerActor"):
        values = msgspec.structs.asdict(given[child])
        assert tuple(name for name, value in values.items() if value is not None) == CHILDREN[child]


def uncommented(text: str, folder: Path) -> Loaded:
    """Read the template with every key in it given."""
    file = folder / "all.toml"
    file.write_text(re.sub(r"^#(?=[a-z_0-9]+ = |\[)", "", text, flags=re.MULTILINE))
    return load(file)


def test_the_template_says_when_each_change_takes_effect() -> None:
    said = {"live": "live", "next job": "next_job", "restart": "restart", "home": "home"}
    section, found = "", {}
    for line in TEMPLATE.partition("# Restart policy")[0].splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif key := re.match(r"#(\w+) = .*?# \((live|next job|restart|home)\)", line):
            found[f"{section}.{key[1]}"] = said[key[2]]
    assert found == {key: mark for key, mark in marks().items() if not key.startswith("supervision.")}


def test_a_home_is_not_made_twice(run: Run, tmp_path: Path) -> None:
    assert run("init", tmp_path / "home").returncode == 0
    (tmp_path / "home" / "stokehold.toml").write_text("[disk]\n")
    done = run("init", tmp_path / "home")
    assert done.returncode == 1
    assert "is a home already" in done.stderr
    assert (tmp_path / "home" / "stokehold.toml").read_text() == "[disk]\n"


def test_a_folder_with_other_things_in_it_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    done = run("init", tmp_path / "mine")
    assert done.returncode == 1
    assert "thesis.tex" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_an_init_that_was_interrupted_is_said_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home" / "queue").mkdir(parents=True)
    assert run("init", tmp_path / "home").returncode == 0


def test_a_file_in_the_way_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("init", tmp_path / "file" / "home")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_json(run: Run, tmp_path: Path) -> None:
    made = json.loads(run("init", tmp_path / "home", "--json").stdout)
    assert made == {"home": str(tmp_path / "home"), "config": str(tmp_path / "home" / "stokehold.toml")}
