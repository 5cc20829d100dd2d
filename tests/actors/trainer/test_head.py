"""HEAD is replaced by one rename; ``current`` follows it and always names something that can be loaded."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from actors.trainer.head import HeadFile, repair_current
from actors.trainer.torn import AllTorn
from protocol.records import Head, NewerFormat
from supervisor.durable import Disk
from tests.actors.trainer.disks import broken_disk, full_disk
from tests.actors.trainer.scene import LINEAGE, Scene, make_home


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(make_home(tmp_path / "home"), Disk())


def head_at(version: int | None, checkpoint: str | None = None) -> Head:
    return Head(LINEAGE, checkpoint, version, datetime.now(UTC))


def test_there_is_none_at_first(scene: Scene) -> None:
    assert scene.head.read() is None
    assert repair_current(scene.home, scene.disk, None) is None
    assert not scene.home.current.is_symlink()


def test_what_is_read_is_what_was_written(scene: Scene) -> None:
    for version in (1, 2):
        head = head_at(version, "step-00000001-abcdef01")
        scene.head.replace(head)
        assert scene.head.read() == head


@pytest.mark.parametrize("damage", [b"", b"{", b"\x00" * 64, b'{"format": 1}'])
def test_an_unreadable_head_is_handled_as_all_torn(scene: Scene, damage: bytes) -> None:
    scene.commit(10)
    scene.home.head.write_bytes(damage)
    with pytest.raises(AllTorn, match=r"HEAD cannot be read.*printf.*begin again"):
        scene.head.read()


def test_a_newer_head_is_refused(scene: Scene) -> None:
    scene.home.head.write_bytes(b'{"format": 2, "something": "else"}')
    with pytest.raises(NewerFormat):
        scene.head.read()


def test_a_failed_replacement_keeps_the_old_one(scene: Scene) -> None:
    old = head_at(1)
    scene.head.replace(old)
    for make in (full_disk, broken_disk):
        with pytest.raises(OSError, match="HEAD"):
            HeadFile(scene.home, make(1)).replace(head_at(2))
        assert scene.head.read() == old


def test_current_follows_head_both_ways(scene: Scene) -> None:
    for step in (10, 20):
        scene.publish(step)
    for version in (1, 2, 1):
        assert repair_current(scene.home, scene.disk, head_at(version)) == version
        assert os.readlink(scene.home.current) == f"versions/{version:06d}"
        assert (scene.home.current / "model.safetensors").exists()


def test_current_is_left_alone_when_it_is_right(scene: Scene) -> None:
    scene.publish(10)
    repair_current(scene.home, scene.disk, head_at(1))
    untouched = broken_disk(1)
    assert repair_current(scene.home, untouched, head_at(1)) == 1
    assert untouched.steps == []


def test_current_never_names_a_damaged_version(scene: Scene) -> None:
    for step in (10, 20):
        scene.publish(step)
    os.truncate(scene.home.version(2) / "model.safetensors", 100)
    assert repair_current(scene.home, scene.disk, head_at(2)) == 1
    (scene.home.version(1) / "manifest.json").unlink()
    assert repair_current(scene.home, scene.disk, head_at(2)) is None
    assert not scene.home.current.is_symlink()


def test_a_version_newer_than_head_is_not_current(scene: Scene) -> None:
    for step in (10, 20):
        scene.publish(step)
    assert repair_current(scene.home, scene.disk, head_at(1)) == 1


def test_a_homes_folder_may_be_moved(scene: Scene, tmp_path: Path) -> None:
    scene.publish(10)
    repair_current(scene.home, scene.disk, head_at(1))
    scene.home.root.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "models" / "current" / "config.json").exists()
