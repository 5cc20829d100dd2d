"""The disk does what it says, on a real file system, and each step reaches the kernel's fsync."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import durable
from supervisor.durable import Disk
from supervisor.testing import CrashingDisk, CrashPoint, FullDisk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every path that is fsynced, in order; the real fsync still happens."""
    seen: list[Path] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_write_truncates_and_syncs(tmp_path: Path, synced: list[Path]) -> None:
    path = tmp_path / "a"
    Disk().write(path, b"a longer text", mode=0o600)
    Disk().write(path, b"short")
    assert path.read_bytes() == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert synced == [path, path]


def test_replace_syncs_the_content_before_the_name(tmp_path: Path, synced: list[Path]) -> None:
    path = tmp_path / "HEAD"
    path.write_bytes(b"old")
    Disk().replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert [one.parent for one in synced] == [tmp_path, tmp_path.parent]
    assert synced[-1] == tmp_path
    assert os.listdir(tmp_path) == ["HEAD"]


def test_a_failing_replace_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "HEAD"
    path.write_bytes(b"old")
    disk = FullDisk(full_at=2)
    with pytest.raises(OSError) as caught:
        disk.replace(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["HEAD"]


@pytest.mark.parametrize("flag", [True, False], ids=["renameat2", "link and unlink"])
def test_rename_refuses_a_taken_name_and_changes_nothing(
    flag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flag:

        def unsupported(source: Path, target: Path) -> None:
            raise OSError(errno.EINVAL, "no such flag on this file system")

        monkeypatch.setattr(durable, "_renameat2", unsupported)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"1")
    target.write_bytes(b"2")
    with pytest.raises(FileExistsError):
        Disk().rename(source, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"1", b"2")
    target.unlink()
    Disk().rename(source, target)
    assert (source.exists(), target.read_bytes()) == (False, b"1")
    folder, taken = tmp_path / "folder", tmp_path / "taken"
    folder.mkdir()
    (folder / "x").write_bytes(b"x")
    taken.mkdir()
    with pytest.raises(FileExistsError):
        Disk().rename(folder, taken)
    Disk().rename(folder, tmp_path / "moved")
    assert (tmp_path / "moved" / "x").read_bytes() == b"x"
    with pytest.raises(FileNotFoundError):
        Disk().rename(tmp_path / "nothing", tmp_path / "anything")


def test_rename_syncs_both_folders_the_new_name_first(tmp_path: Path, synced: list[Path]) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "a").write_bytes(b"1")
    Disk().rename(tmp_path / "from" / "a", tmp_path / "to" / "a")
    Disk().rename_over(tmp_path / "to" / "a", tmp_path / "from" / "a")
    assert synced == [tmp_path / "to", tmp_path / "from", tmp_path / "from", tmp_path / "to"]


def test_the_syncs_of_many_renames_can_be_left_to_the_caller(tmp_path: Path, synced: list[Path]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"x")
        Disk().rename(tmp_path / name, tmp_path / f"{name}-moved", sync=False)
    assert synced == []
    assert sorted(os.listdir(tmp_path)) == ["one-moved", "two-moved"]


def test_rename_across_file_systems_copies(tmp_path: Path, synced: list[Path]) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        other = Path("/tmp")
    source, target = tmp_path / "a", other / f"stokehold-test-{os.getpid()}"
    source.write_bytes(b"1")
    os.utime(source, (1_000_000, 1_000_000))
    try:
        Disk().rename(source, target)
        assert (target.read_bytes(), source.exists(), target.stat().st_mtime) == (b"1", False, 1_000_000)
        source.write_bytes(b"2")
        with pytest.raises(FileExistsError):
            Disk().rename(source, target)
        assert (source.read_bytes(), target.read_bytes()) == (b"2", b"1")
        assert [name for name in os.listdir(other) if "stokehold-test" in name] == [target.name]
    finally:
        target.unlink(missing_ok=True)


def test_names_links_folders_and_removal(tmp_path: Path, synced: list[Path]) -> None:
    disk = Disk()
    disk.mkdir(tmp_path / "d")
    disk.mkdir(tmp_path / "d", exist_ok=True)
    with pytest.raises(FileExistsError):
        disk.mkdir(tmp_path / "d")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileExistsError):
        disk.mkdir(tmp_path / "file", exist_ok=True)
    disk.link(tmp_path / "file", tmp_path / "d" / "second")
    with pytest.raises(FileExistsError):
        disk.link(tmp_path / "file", tmp_path / "d" / "second")
    assert (tmp_path / "d" / "second").samefile(tmp_path / "file")
    disk.symlink("versions/000001", tmp_path / "current")
    disk.symlink("versions/000002", tmp_path / "current")
    assert os.readlink(tmp_path / "current") == "versions/000002"
    disk.unlink(tmp_path / "current")
    disk.unlink(tmp_path / "current", missing_ok=True)
    with pytest.raises(FileNotFoundError):
        disk.unlink(tmp_path / "current")
    disk.remove_tree(tmp_path / "d")
    disk.remove_tree(tmp_path / "d")
    disk.sync_file(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file"]
    assert synced.count(tmp_path) == 5
    assert synced.count(tmp_path / "d") == 1
    assert synced[-1] == tmp_path / "file"


def test_a_temporary_name_of_a_long_name_fits(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    Disk().replace(path, b"x")
    assert path.read_bytes() == b"x"


def test_free_space_is_that_of_this_user(tmp_path: Path) -> None:
    space = Disk().free(tmp_path)
    found = os.statvfs(tmp_path)
    assert space.total_bytes == found.f_blocks * found.f_frsize
    assert 0 < space.free_bytes <= space.total_bytes
    assert space.free_inodes >= 0


def test_a_full_disk_fails_from_its_step_on_until_there_is_room(tmp_path: Path) -> None:
    disk = FullDisk(full_at=2)
    disk.mkdir(tmp_path / "d")
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            disk.write(tmp_path / "d" / "a", b"1")
        assert caught.value.errno == errno.ENOSPC
    disk.remove_tree(tmp_path / "d")
    disk.make_room()
    disk.write(tmp_path / "a", b"1")
    connection = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    connection.execute("create table t (x)")
    connection.execute("begin")
    connection.execute("insert into t values (1)")
    disk.full_at = 1
    with pytest.raises(OSError):
        disk.commit(connection)
    disk.make_room()
    disk.commit(connection)
    assert connection.execute("select count(*) from t").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize(
    ("point", "content"),
    [
        ('"write"', b"old"),
        ('"write", after=True', b"old"),
        ('"rename_over", "HEAD"', b"old"),
        ('"rename_over", "HEAD", after=True', b"new"),
        ('"sync_folder", count=1', b"new"),
    ],
)
def test_a_crash_at_any_step_of_a_replace_leaves_the_old_or_the_new(tmp_path: Path, point: str, content: bytes) -> None:
    (tmp_path / "HEAD").write_bytes(b"old")
    program = (
        "import sys; from pathlib import Path; from supervisor.testing.disks import CrashingDisk, CrashPoint\n"
        f"CrashingDisk(CrashPoint({point})).replace(Path(sys.argv[1]) / 'HEAD', b'new')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == 137
    assert (tmp_path / "HEAD").read_bytes() == content


def test_a_crash_point_counts_only_what_matches() -> None:
    point = CrashPoint("write", "b", count=2)
    hits = [point.hit("write", Path(name), after=False) for name in ("a", "b", "a", "b")]
    assert hits == [False, False, False, True]
    assert not CrashPoint("write").hit("unlink", None, after=False)
    assert isinstance(CrashingDisk(point), Disk)
