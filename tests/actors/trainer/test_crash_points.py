"""The process dies before each durable step of save, publication and retention; the next start is sound each time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from actors.trainer.head import repair_current
from actors.trainer.publish import clean_versions, verify_version
from protocol.home import Home
from supervisor.durable import Disk
from tests.actors.trainer.scene import Scene, assert_is_step, make_home

ROOT = Path(__file__).resolve().parents[3]


def prepare(root: Path) -> None:
    """Two checkpoints, two versions, HEAD at the newest of both."""
    scene = Scene(make_home(root), Disk())
    first = scene.commit(10)
    for step in (10, 20):
        version = scene.publish(step)
    second = scene.commit(20, parent=first.name)
    head = scene.head.read()
    assert head is not None and head.checkpoint == second.name
    scene.head.replace(type(head)(head.lineage, head.checkpoint, version.version, head.updated_at))
    repair_current(scene.home, scene.disk, scene.head.read())


def run_and_die(root: Path, at: int) -> int:
    command = [sys.executable, "-P", "-m", "tests.actors.trainer.dying", str(root), str(at)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def assert_sound(root: Path) -> int:
    """Start as the trainer does; return the step that it goes on from."""
    scene = Scene(Home(root), Disk())
    scene.store.clean()
    clean_versions(scene.home, scene.disk)
    head = scene.head.read()
    assert head is not None and head.version is not None
    loaded = scene.newest()
    assert loaded is not None and not loaded.passed_over
    assert loaded.manifest.name == head.checkpoint
    assert_is_step(loaded, loaded.manifest.step)
    assert repair_current(scene.home, scene.disk, head) == head.version
    assert scene.home.current.resolve() == scene.home.version(head.version)
    assert verify_version(scene.home, head.version) is None
    assert not [path.name for path in scene.home.checkpoints.iterdir() if path.name.startswith(".")]
    assert not [path.name for path in scene.home.versions.iterdir() if path.name.startswith(".")]
    return loaded.manifest.step


def test_a_death_before_any_step_leaves_a_sound_home(tmp_path: Path) -> None:
    prepare(tmp_path / "origin")
    went_on_from = []
    at = 0
    while True:
        at += 1
        root = tmp_path / f"home{at}"
        shutil.copytree(tmp_path / "origin", root, symlinks=True)
        code = run_and_die(root, at)
        assert code in (0, 9), f"step {at} ended with {code}"
        went_on_from.append(assert_sound(root))
        scene = Scene(Home(root), Disk())
        head = scene.head.read()
        assert head is not None
        scene.commit(40, parent=head.checkpoint)
        assert_is_step(scene.newest(), 40)
        shutil.rmtree(root)
        if code == 0:
            break
    assert at > 20, "the list of steps has shrunk: is the disk still used for all of them?"
    assert went_on_from == sorted(went_on_from), "a later death must not lose what an earlier one kept"
    assert {20, 30} == set(went_on_from)
