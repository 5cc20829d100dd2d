"""A checkpoint is whole or absent; a damaged one is recognised, set aside, and the one before it used."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from actors.trainer.retention import retain_checkpoints
from actors.trainer.tensorfile import BadTensorFile, contents
from actors.trainer.torn import AllTorn, Torn
from protocol.records import Head, NewerFormat
from supervisor.durable import Disk
from tests.actors.trainer.disks import broken_disk, full_disk
from tests.actors.trainer.scene import LINEAGE, Scene, assert_is_step, make_home

Damage = Callable[[Path], object]


def flip(path: Path, count: int = 64) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + count] = bytes(255 - byte for byte in data[middle : middle + count])
    path.write_bytes(data)


def flip_a_digit_of_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    text = path.read_text()
    assert '"tokens": 3000' in text
    path.write_text(text.replace('"tokens": 3000', '"tokens": 3001'))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def link_elsewhere(folder: Path) -> None:
    """The right bytes, but not in the checkpoint."""
    (folder / "state.json").rename(folder.parent / "elsewhere")
    (folder / "state.json").symlink_to("../elsewhere")


DAMAGES: dict[str, Damage] = {
    "truncated": lambda folder: os.truncate(
        folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1
    ),
    "missing": lambda folder: (folder / "optimizer.safetensors").unlink(),
    "flipped": lambda folder: flip(folder / "model.safetensors"),
    "flipped optimizer": lambda folder: flip(folder / "optimizer.safetensors", 1),
    "extra file": lambda folder: (folder / "stranger.bin").write_bytes(b"x"),
    "zero length": lambda folder: os.truncate(folder / "model.safetensors", 0),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest empty": lambda folder: os.truncate(folder / "manifest.json", 0),
    "manifest half": lambda folder: os.truncate(folder / "manifest.json", 100),
    "manifest digit": flip_a_digit_of_the_manifest,
    "ledger damaged": lambda folder: flip(folder / "ledger.json", 1),
    "state damaged": lambda folder: flip(folder / "state.json", 1),
    "state missing": lambda folder: (folder / "state.json").unlink(),
    "folder empty": empty,
    "folder gone": lambda folder: shutil.rmtree(folder),
    "link instead of a file": link_elsewhere,
}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(make_home(tmp_path / "home"), Disk())


def run_command(text: str, begins: str) -> None:
    """Run the command that a text offers, as a user would who copies it."""
    subprocess.run(["sh", "-c", text.split(begins)[1].split(" , ")[0]], check=True)


def three(scene: Scene) -> list[str]:
    names: list[str] = []
    for step in (10, 20, 30):
        names.append(scene.commit(step, parent=names[-1] if names else None).name)
    return names


def test_what_is_loaded_is_what_was_saved(scene: Scene) -> None:
    names = three(scene)
    loaded = scene.newest()
    assert_is_step(loaded, 30)
    assert loaded is not None and loaded.manifest.name == names[2] and loaded.manifest.parent == names[1]
    assert (loaded.manifest.tokens, loaded.manifest.published_step, loaded.manifest.identity) == (
        3000,
        20,
        {"code": "1"},
    )
    assert not loaded.passed_over


def test_a_home_that_never_had_one_begins_from_the_base(scene: Scene) -> None:
    assert scene.newest() is None
    scene.head.replace(Head(LINEAGE, None, 1, datetime.now(UTC)))
    assert scene.newest() is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_passed_over(scene: Scene, damage: str) -> None:
    names = three(scene)
    DAMAGES[damage](scene.home.checkpoints / names[2])
    with pytest.raises(Torn):
        scene.store.load(names[2])
    loaded = scene.newest()
    assert_is_step(loaded, 20)
    assert loaded is not None and [torn.name for torn in loaded.passed_over] == [names[2]]
    assert not (scene.home.checkpoints / names[2]).exists()
    if damage != "folder gone":
        assert (scene.home.checkpoints / f".torn-{names[2]}").exists()
    again = scene.newest()
    assert_is_step(again, 20)


def test_two_torn_in_a_row(scene: Scene) -> None:
    names = three(scene)
    DAMAGES["flipped"](scene.home.checkpoints / names[2])
    DAMAGES["manifest empty"](scene.home.checkpoints / names[1])
    loaded = scene.newest()
    assert_is_step(loaded, 10)
    assert loaded is not None and [torn.name for torn in loaded.passed_over] == [names[2], names[1]]


def test_all_torn_stops_and_stays_stopped(scene: Scene) -> None:
    for name in three(scene):
        DAMAGES["truncated"](scene.home.checkpoints / name)
    for _ in range(2):  # also when all were set aside by the first attempt
        with pytest.raises(AllTorn, match="begin again from the base model: mv "):
            scene.newest()


def test_the_command_that_all_torn_prints_ends_it(scene: Scene) -> None:
    for name in three(scene):
        DAMAGES["manifest missing"](scene.home.checkpoints / name)
    with pytest.raises(AllTorn) as caught:
        scene.newest()
    run_command(str(caught.value), "begin again from the base model: ")
    assert scene.newest() is None
    scene.commit(10)
    assert_is_step(scene.newest(), 10)


def test_a_missing_head_is_handled_as_all_torn_and_can_be_adopted(scene: Scene) -> None:
    names = three(scene)
    DAMAGES["flipped"](scene.home.checkpoints / names[2])
    scene.home.head.unlink()
    with pytest.raises(AllTorn, match="HEAD is missing") as caught:
        scene.newest()
    assert (scene.home.checkpoints / names[2]).exists(), "nothing is renamed while nobody decided"
    run_command(str(caught.value), "newest whole one: ")
    assert_is_step(scene.newest(), 20)


def test_a_checkpoint_that_was_never_head_is_not_resumed_from(scene: Scene) -> None:
    names = three(scene)
    orphan = scene.save(40, parent=names[2])
    assert_is_step(scene.newest(), 30)
    DAMAGES["flipped"](scene.home.checkpoints / names[2])
    assert_is_step(scene.newest(), 20)
    assert (scene.home.checkpoints / orphan.name).exists()


def test_ancestors_come_before_others_of_the_lineage(scene: Scene) -> None:
    first = scene.commit(10)
    aside = scene.save(25, parent=first.name)
    second = scene.commit(20, parent=first.name)
    third = scene.commit(30, parent=second.name)
    DAMAGES["flipped"](scene.home.checkpoints / third.name)
    assert_is_step(scene.newest(), 20)
    assert (scene.home.checkpoints / aside.name).exists()


def test_another_lineage_is_never_resumed_from(scene: Scene) -> None:
    scene.save(5, lineage="line-0")
    for name in three(scene):
        DAMAGES["flipped"](scene.home.checkpoints / name)
    with pytest.raises(AllTorn):
        scene.newest()


def test_a_newer_format_is_refused_and_not_set_aside(scene: Scene) -> None:
    names = three(scene)
    path = scene.home.checkpoints / names[2] / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(NewerFormat):
        scene.newest()
    assert path.exists()


def test_permission_trouble_is_not_taken_for_damage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    three(scene)

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "no", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        scene.newest()


def test_listing_shows_what_sizes_show(scene: Scene) -> None:
    names = three(scene)
    DAMAGES["truncated"](scene.home.checkpoints / names[1])
    entries = scene.store.entries()
    assert [entry.name for entry in entries] == names[::-1]
    assert [entry.problem is None for entry in entries] == [True, False, True]
    on_disk = sum(path.stat().st_size for path in (scene.home.checkpoints / names[2]).iterdir())
    assert entries[0].bytes == on_disk


def test_nothing_is_listed_where_nothing_is(scene: Scene) -> None:
    assert scene.store.entries() == []


@pytest.mark.parametrize("make", [full_disk, broken_disk])
def test_a_failed_save_leaves_nothing_and_loses_nothing(scene: Scene, make: Callable[[int], Disk]) -> None:
    scene.commit(10)
    steps = 0
    while True:
        steps += 1
        failing = Scene(scene.home, make(steps))
        try:
            manifest = failing.save(20)
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EIO)
            assert sorted(path.name for path in scene.home.checkpoints.iterdir()) == [scene.store.entries()[0].name]
            assert_is_step(scene.newest(), 10)
        else:
            break
    assert steps > 6
    assert scene.store.load(manifest.name).manifest == manifest


def test_a_save_that_cannot_be_read_back_fails(scene: Scene) -> None:
    class Corrupting(Disk):
        def sync_file(self, path: Path) -> None:
            super().sync_file(path)
            flip(path, 1)

    with pytest.raises(OSError, match="not what was written"):
        Scene(scene.home, Corrupting()).save(10)
    assert list(scene.home.checkpoints.iterdir()) == []


def test_state_that_json_cannot_hold_is_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        scene.store.save(
            step=1, tokens=1, lineage=LINEAGE, parent=None, base=scene.commit(10).base, tensors={},
            state={"loss": float("nan")}, ledger=scene.store.shelf.ledger(scene.store.entries()[0].name), identity={},
        )  # fmt: skip
    assert len(list(scene.home.checkpoints.iterdir())) == 1


def test_clean_removes_what_a_killed_process_left(scene: Scene) -> None:
    three(scene)
    (scene.home.checkpoints / ".tmp-abc" / "deep").mkdir(parents=True)
    (scene.home.checkpoints / ".trash-abc").mkdir()
    assert scene.store.clean() == [".tmp-abc", ".trash-abc"]
    assert len(scene.store.entries()) == 3
    assert scene.store.clean() == []


def test_retention_keeps_the_newest_and_head(scene: Scene) -> None:
    names = three(scene)
    head = scene.head.read()
    assert head is not None
    scene.head.replace(Head(LINEAGE, names[0], None, head.updated_at))
    removed = scene.store.retain(keep=2)
    assert sorted(removed) == sorted(names[1:]), "what is newer than HEAD is off its line"
    assert_is_step(scene.newest(), 10)


def test_retention_by_count(scene: Scene) -> None:
    names = three(scene)
    names.append(scene.commit(40, parent=names[-1]).name)
    names.append(scene.commit(50, parent=names[-1]).name)
    assert scene.store.retain(keep=2) == [names[2], names[1], names[0]]
    assert [entry.name for entry in scene.store.entries()] == [names[4], names[3]]
    assert scene.store.retain(keep=2) == []


def test_a_torn_one_does_not_count_as_kept(scene: Scene) -> None:
    names = three(scene)
    DAMAGES["truncated"](scene.home.checkpoints / names[1])
    assert scene.store.retain(keep=2) == []


def test_torn_ones_go_when_enough_newer_ones_stand(scene: Scene) -> None:
    names = three(scene)
    DAMAGES["flipped"](scene.home.checkpoints / names[2])
    scene.newest()
    scene.head.replace(Head(LINEAGE, names[1], None, datetime.now(UTC)))
    scene.commit(40, parent=names[1])
    assert scene.store.retain(keep=2) == [names[0]]
    assert (scene.home.checkpoints / f".torn-{names[2]}").exists()
    scene.commit(50)
    assert set(scene.store.retain(keep=2)) == {names[1], f".torn-{names[2]}"}


def test_without_head_retention_removes_nothing(scene: Scene) -> None:
    three(scene)
    scene.home.head.unlink()
    assert retain_checkpoints(scene.home, scene.disk, keep=1) == []


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """Yield a disk on which ``folder`` holds ``size`` bytes: a tmpfs, or where none may be mounted, one that counts."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        yield CountingDisk(folder, size)
        return
    try:
        yield Disk()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class CountingDisk(Disk):
    """Full once the files below a folder have more than ``size`` bytes together."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size

    def sync_file(self, path: Path) -> None:
        if sum(one.stat().st_size for one in self._folder.rglob("*") if one.is_file()) > self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().sync_file(path)


def test_a_full_file_system_loses_nothing(tmp_path: Path) -> None:
    """Two checkpoints of 400 kB fit, the third does not."""
    with small_disk(tmp_path / "small", 1 << 20) as disk:
        scene = Scene(make_home(tmp_path / "small"), disk)
        scene.commit(10, size=25_000)
        scene.commit(20, size=25_000)
        with pytest.raises(OSError) as caught:
            scene.commit(30, size=25_000)
        assert caught.value.errno == errno.ENOSPC
        assert len(list(scene.home.checkpoints.iterdir())) == 2
        loaded = scene.newest()
        assert loaded is not None and loaded.manifest.step == 20
        assert scene.store.retain(keep=1)
        scene.commit(30, size=25_000)
        loaded = scene.newest()
        assert loaded is not None and loaded.manifest.step == 30


def test_a_wild_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wild.safetensors"
    for data in (
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"nope",
        *(
            len(header).to_bytes(8, "little") + header + b"\0" * 16
            for header in (
                json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode(),
                json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode(),
                json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}).encode(),
                json.dumps({"a": {"dtype": "Q7", "shape": [0], "data_offsets": [0, 0]}}).encode(),
                json.dumps({"a": {"dtype": "F32", "data_offsets": [0, 4]}}).encode(),
            )
        ),
    ):
        path.write_bytes(data)
        with path.open("rb") as file, pytest.raises(BadTensorFile):
            contents(file)


def test_listing_and_checking_need_no_torch(scene: Scene) -> None:
    three(scene)
    program = (
        "import sys; from pathlib import Path; from protocol.home import Home; from supervisor.durable import Disk;"
        "from actors.testing.floats import FloatCodec; from actors.trainer.checkpoint import CheckpointStore;"
        f"store = CheckpointStore(Home(Path({shlex.quote(str(scene.home.root))!r})), Disk(), FloatCodec());"
        "[store.shelf.verify(entry.name) for entry in store.entries()]; store.retain(1);"
        "sys.exit(bool({'torch', 'numpy', 'safetensors'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert len(scene.store.entries()) == 1
