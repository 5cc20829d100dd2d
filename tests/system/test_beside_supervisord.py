"""PyPI's `supervisor` in the same environment: a clear refusal, not a silent mixture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.system.harness import ROOT


def test_foreign_package_of_our_name_is_refused(tmp_path: Path) -> None:
    """What pip leaves behind: supervisord's `__init__` in the folder that holds our other modules."""
    mixture = tmp_path / "site"
    subprocess.run(
        ["cp", "-r", *(str(ROOT / name) for name in ("actors", "supervisor", "protocol"))] + [str(tmp_path)], check=True
    )
    mixture.mkdir()
    for name in ("actors", "supervisor", "protocol"):
        (tmp_path / name).rename(mixture / name)
    (mixture / "supervisor" / "__init__.py").write_text("#\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", "--home", str(tmp_path / "home")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(mixture)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78, done.stderr
    assert "supervisord" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


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
