"""PyPI's `supervisor` in the same environment: a clear refusal, not a silent mixture."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import ROOT

PACKAGES = ("actors", "protocol", "supervisor")
FILES_OF_THEIRS = ("supervisord", "supervisorctl", "rpcinterface", "options", "process", "events", "states")


def stand_in(folder: Path) -> None:
    """Make what supervisord leaves in an environment, as far as it matters: an empty package and its modules."""
    (folder / "supervisor").mkdir(parents=True)
    (folder / "supervisor" / "__init__.py").write_text("# this is a package\n")
    for name in FILES_OF_THEIRS:
        (folder / "supervisor" / f"{name}.py").write_text("")


@pytest.fixture(scope="module", params=["as pip fetches it", "stand-in"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which supervisord was installed: by pip, or if pip cannot fetch it what stands for it."""
    folder = tmp_path_factory.mktemp("theirs") / "site"
    if request.param == "as pip fetches it":
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "0", "--timeout", "5", "--no-deps"]
        done = subprocess.run([*pip, "--target", str(folder), "supervisor"], capture_output=True, check=False)
        if done.returncode == 0:
            assert (folder / "supervisor" / "supervisord.py").exists()
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    stand_in(folder)
    return folder


def run(tmp_path: Path, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", *arguments, "--home", str(tmp_path / "home")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_installed_into_the_same_environment_it_is_refused(tmp_path: Path, theirs: Path, first: str) -> None:
    """The second to be installed overwrites what both have, and leaves the rest of the other's where it is."""
    site = tmp_path / "site"
    ours = tmp_path / "ours"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, ours / package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (ours, theirs) if first == "ours" else (theirs, ours):
        shutil.copytree(folder, site, dirs_exist_ok=True)
    (tmp_path / "home").mkdir()
    for command in (["supervisor"], ["protocol.cli.main", "run"]):
        done = run(tmp_path, site, *command)
        assert done.returncode == 78, done.stderr
        assert "supervisord" in done.stderr
        assert "virtual environment of its own" in done.stderr
        assert len(done.stderr.splitlines()) == 1, "no traceback"
        assert done.stdout == ""
    assert list((tmp_path / "home").iterdir()) == []


def test_a_folder_named_supervisor_in_the_current_directory_does_not_shadow_ours(tmp_path: Path) -> None:
    decoy = tmp_path / "supervisor"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise SystemExit('the decoy was run')\n")
    (decoy / "__main__.py").write_text("raise SystemExit('the decoy was run')\n")
    (tmp_path / "bad.toml").write_text("[disk]\nrefuse_belw = 1\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "protocol.cli.main", "run", "bad.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "decoy" not in done.stderr + done.stdout
    assert done.returncode == 78, done.stderr
    assert "refuse_belw" in done.stderr
    assert "refuse_below" in done.stderr, "the nearest right name"
    assert "bad.toml" in done.stderr
    assert ":2" in done.stderr or "line 2" in done.stderr
