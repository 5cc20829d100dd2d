"""``run``, ``plan`` and ``preview``: this process becomes another."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.home import Home
from tests.protocol.cli.conftest import COMMAND, ROOT, Run, environment

TELL = """\
import json, os, sys
print(json.dumps({"module": __spec__.name, "words": sys.argv[1:], "pid": os.getpid(), "safe": sys.flags.safe_path}))
"""


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment in which the programs that commands become tell how they were started."""
    for module in ("supervisor/__main__.py", "actors/tools/plan.py", "actors/tools/preview.py"):
        path = tmp_path / "fake" / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TELL)
        (path.parent / "__init__.py").touch()
    (tmp_path / "fake" / "actors" / "__init__.py").touch()
    return {"PYTHONPATH": f"{tmp_path / 'fake'}:{ROOT}"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["run", "--home", "h"], ["--home", "h"]),
        (["--home", "h", "run"], ["--home", "h"]),
        (["run", "{config}"], ["--config", "{config}"]),
        (
            ["run", "{config}", "--home", "h", "--backend", "trio"],
            ["--backend", "trio", "--config", "{config}", "--home", "h"],
        ),
    ],
)
def test_arguments_reach_the_binary(
    run: Run, fake: dict[str, str], tmp_path: Path, words: list[str], wanted: list[str]
) -> None:
    config = tmp_path / "some.toml"
    config.write_text("[disk]\n")
    told = json.loads(run(*(w.format(config=config) for w in words), env=fake).stdout)
    assert told["words"] == [w.format(config=config) for w in wanted]
    assert told["module"] == "supervisor.__main__"
    assert told["safe"]


def test_the_pid_stays(fake: dict[str, str], home: Home) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "--home", home.root], stdout=subprocess.PIPE, text=True, env=environment(fake)
    )
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["pid"] == process.pid


def test_a_person_is_told_that_it_starts_and_a_log_is_not(run: Run, fake: dict[str, str], home: Home) -> None:
    assert run("run", "--home", home.root, env=fake).stderr == ""
    ours, theirs = pty.openpty()
    subprocess.run(
        [*COMMAND, "run", "--home", home.root],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment(fake),
        check=True,
    )
    os.close(theirs)
    assert f"stokehold status --home {home.root}" in os.read(ours, 4096).decode()
    os.close(ours)


def test_a_decoy_in_the_current_folder_is_not_run(run: Run, fake: dict[str, str], home: Home, tmp_path: Path) -> None:
    for name in ("supervisor", "actors", "protocol"):
        (tmp_path / "nowhere" / name).mkdir()
        for file in ("__init__.py", "__main__.py"):
            (tmp_path / "nowhere" / name / file).write_text("raise SystemExit('decoy')")
    assert json.loads(run("run", "--home", home.root, env=fake).stdout)["module"] == "supervisor.__main__"


def test_the_event_loop_that_the_file_asks_for(run: Run, fake: dict[str, str], home: Home) -> None:
    home.settings.write_text('[daemon]\nbackend = "trio"\n')
    assert json.loads(run("run", "--home", home.root, env=fake).stdout)["words"][:2] == ["--backend", "trio"]
    both = json.loads(run("run", "--home", home.root, "--backend", "asyncio", env=fake).stdout)
    assert both["words"][:2] == ["--backend", "asyncio"]


@pytest.mark.parametrize("text", ["[daemon", "daemon = 3", '[daemon]\nbackend = "twisted"', "\xff"])
def test_a_file_that_is_wrong_is_left_to_the_daemon_to_judge(
    run: Run, fake: dict[str, str], home: Home, text: str
) -> None:
    home.settings.write_text(text, encoding="latin-1")
    assert json.loads(run("run", "--home", home.root, env=fake).stdout)["words"] == ["--home", str(home.root)]


def test_the_environment_names_the_home_beside_a_config(run: Run, fake: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "some.toml"
    config.touch()
    told = json.loads(run("run", config, env=fake | {"STOKEHOLD_HOME": "/srv/h"}).stdout)
    assert told["words"] == ["--config", str(config), "--home", "/srv/h"]


@pytest.mark.parametrize("config", ["missing.toml", "."])
def test_a_config_that_cannot_be_read_exits_78(run: Run, fake: dict[str, str], config: str) -> None:
    done = run("run", config, env=fake)
    assert done.returncode == 78
    assert done.stdout == ""
    assert config in done.stderr


def test_tools(run: Run, fake: dict[str, str], home: Home) -> None:
    told = json.loads(run("plan", "--home", home.root, env=fake).stdout)
    assert (told["module"], told["words"]) == ("actors.tools.plan", ["--home", str(home.root)])
    told = json.loads(run("preview", "x.jsonl", "--config", "c.toml", "--json", env=fake).stdout)
    assert told["module"] == "actors.tools.preview"
    assert told["words"] == ["--config", "c.toml", "--json", "x.jsonl"]
    assert run("preview", env=fake).returncode == 2


def test_the_module_runs_as_python_m() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "protocol.cli.main", "--help"], env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 0
