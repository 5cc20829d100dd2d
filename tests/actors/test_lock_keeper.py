"""One daemon per home: real processes, really killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from actors.home_lock import HeldElsewhere, find_holder, leave, take
from actors.lock_keeper import LockKeeper
from actors.settings_store import ConfigStore
from protocol.config import Config
from protocol.home import Home
from supervisor import BootRefused, ChildSpec, Disk, SupervisorSpec, open_tree
from supervisor.testing import eventually

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys
from pathlib import Path
from actors.home_lock import take
from actors.settings_store import ConfigStore
from protocol.config import Config
from protocol.home import Home
from supervisor import Disk
take(Home(Path(sys.argv[1])), object(), Disk())
"""

WAIT = """
print("held", flush=True)
sys.stdin.read()
"""

LEAVE_ORPHAN = """
import os, fcntl
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print("held", child, flush=True)
sys.stdin.read()
"""


@contextmanager
def process(home: Path, then: str = WAIT) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a process that takes the lock, and kill it at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD + then, str(home)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        stdout: IO[str] | None = running.stdout
        assert stdout is not None
        words = stdout.readline().split()
        assert words[:1] == ["held"]
        try:
            yield running, words
        finally:
            running.kill()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home that does not exist yet; what this process took of it is left at the end."""
    home = Home(tmp_path / "home")
    yield home
    leave(home, home)


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def holder_of(home: Home) -> HeldElsewhere:
    with pytest.raises(HeldElsewhere) as caught:
        take(home, home, Disk())
    return caught.value


def test_a_second_process_is_told_the_pid_of_the_first_and_changes_nothing(home: Home) -> None:
    with process(home.root) as (first, _):
        before = everything_below(home.root)
        assert holder_of(home).holder.pid == first.pid
        assert everything_below(home.root) == before


def test_after_a_kill_the_lock_is_free_at_once(home: Home) -> None:
    with process(home.root) as (first, _):
        first.send_signal(signal.SIGKILL)
        first.wait()
    take(home, home, Disk())
    assert json.loads(home.lock.read_text())["pid"] == os.getpid()


def test_a_lock_file_that_names_a_living_process_blocks_nobody(home: Home) -> None:
    with process(home.root) as (first, _):
        first.send_signal(signal.SIGKILL)
        first.wait()
    record = json.loads(home.lock.read_text())
    home.lock.write_text(json.dumps(record | {"pid": os.getppid()}))
    take(home, home, Disk())


@pytest.mark.parametrize("content", ["", "{", "1", '{"pid": 1}', "\x00" * 100])
def test_a_lock_file_with_any_content_blocks_nobody(home: Home, content: str) -> None:
    home.run.mkdir(parents=True)
    home.lock.write_text(content)
    take(home, home, Disk())
    assert json.loads(home.lock.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("lie", [{"pid": 1}, {"start_ticks": 1}, {"boot_id": "another"}, None])
def test_the_holder_is_found_although_the_file_says_something_else(home: Home, lie: dict[str, object] | None) -> None:
    with process(home.root) as (first, _):
        record = json.loads(home.lock.read_text())
        home.lock.write_text("" if lie is None else json.dumps(record | lie))
        assert holder_of(home).holder.pid == first.pid
        assert holder_of(home).holder.orphan_of is None


def test_a_record_of_an_earlier_boot_is_not_believed_however_well_it_fits_a_living_process(home: Home) -> None:
    with process(home.root) as (first, _), process(home.root.with_name("other")) as (other, _):
        fits = json.loads(Home(home.root.with_name("other")).lock.read_text())
        assert fits["pid"] == other.pid
        home.lock.write_text(json.dumps(fits | {"boot_id": "an earlier one"}))
        assert holder_of(home).holder.pid == first.pid


def test_the_lock_survives_that_its_file_is_deleted(home: Home) -> None:
    with process(home.root) as (first, _):
        home.lock.unlink()
        home.run.rmdir()
        assert holder_of(home).holder.pid == first.pid
        assert not home.run.exists()


def test_a_child_that_inherited_the_lock_is_told_apart_from_a_daemon(home: Home) -> None:
    with process(home.root, LEAVE_ORPHAN) as (first, words):
        orphan = int(words[1])
        assert holder_of(home).holder.pid == first.pid
        first.send_signal(signal.SIGKILL)
        first.wait()
        try:
            holder = holder_of(home).holder
            assert (holder.pid, holder.orphan_of) == (orphan, first.pid)
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_whoever_merely_looks_at_the_lock_refuses_nobody(home: Home) -> None:
    home.run.mkdir(parents=True)
    looking = home.lock.open("w")
    fcntl.flock(looking, fcntl.LOCK_SH)
    letting_go = threading.Timer(0.03, looking.close)
    letting_go.start()
    take(home, home, Disk())
    letting_go.join()


def test_two_users_of_one_process_exclude_each_other_until_one_leaves(home: Home) -> None:
    other = object()
    take(home, home, Disk())
    take(home, home, Disk())
    with pytest.raises(HeldElsewhere) as caught:
        take(home, other, Disk())
    assert caught.value.holder.pid == os.getpid()
    leave(home, home)
    take(home, other, Disk())
    leave(home, other)
    assert find_holder(home).pid == os.getpid()  # nobody else may have it although nobody here uses it


def test_a_deleted_lock_file_is_made_anew_by_its_holder(home: Home) -> None:
    take(home, home, Disk())
    home.lock.unlink()
    take(home, home, Disk())
    assert json.loads(home.lock.read_text())["pid"] == os.getpid()


def test_the_lock_is_private_and_not_inherited(home: Home) -> None:
    take(home, home, Disk())
    assert home.lock.stat().st_mode & 0o777 == 0o600
    assert home.run.stat().st_mode & 0o777 == 0o700
    descriptors = [int(link.name) for link in Path("/proc/self/fd").iterdir() if _leads_to(link, home)]
    assert len(descriptors) == 2
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)


def _leads_to(link: Path, home: Home) -> bool:
    try:
        return os.readlink(link) in (str(home.root), str(home.lock))
    except FileNotFoundError:
        return False


# ---------------------------------------------------------------- the actor


def keeper(home: Home) -> SupervisorSpec:
    return SupervisorSpec(
        "root", [ChildSpec("LockKeeper", lambda: LockKeeper(home, ConfigStore(Config())))], strategy="rest_for_one"
    )


@pytest.mark.anyio
async def test_the_actor_makes_the_folders_when_it_has_the_lock(home: Home) -> None:
    async with open_tree(keeper(home)):
        assert all(folder.is_dir() for folder in home.folders)


@pytest.mark.anyio
async def test_a_folder_that_somebody_made_for_all_is_closed_to_others(home: Home) -> None:
    """Who can reach the socket in it commands the daemon."""
    home.root.mkdir()
    home.run.mkdir(mode=0o755)
    async with open_tree(keeper(home)):
        assert home.run.stat().st_mode & 0o777 == 0o700


@pytest.mark.anyio
async def test_a_second_daemon_is_refused_with_one_line_and_creates_nothing(home: Home) -> None:
    with process(home.root) as (first, _):
        before = everything_below(home.root)
        with pytest.raises(BootRefused) as caught:
            async with open_tree(keeper(home)):
                raise AssertionError("it started")
        assert caught.value.message == f"Another daemon is running (PID {first.pid})"
        assert caught.value.exit_code == 1
        assert everything_below(home.root) == before


@pytest.mark.anyio
async def test_a_second_tree_in_one_process_is_refused_and_may_start_when_the_first_has_ended(home: Home) -> None:
    other = Home(home.root)
    async with open_tree(keeper(home)):
        with pytest.raises(BootRefused, match=rf"Another daemon is running \(PID {os.getpid()}\)"):
            async with open_tree(keeper(other)):
                raise AssertionError("it started")
    async with open_tree(keeper(other)):
        assert home.inbox.is_dir()


@pytest.mark.anyio
async def test_a_restart_of_the_actor_keeps_the_lock(home: Home) -> None:
    async with open_tree(keeper(home)) as tree:
        inode = home.lock.stat().st_ino
        locked_at = home.lock.stat().st_mtime_ns
        tree.inject_fault("LockKeeper", RuntimeError("a fault of the test"))
        await eventually(lambda: tree.view().children[0].restarts == 1 and tree.view().children[0].status == "running")
        assert (home.lock.stat().st_ino, home.lock.stat().st_mtime_ns) == (inode, locked_at)
        assert find_holder(home).pid == os.getpid()


@pytest.mark.anyio
async def test_a_home_that_cannot_be_made_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BootRefused) as caught:
        async with open_tree(keeper(Home(tmp_path / "file" / "home"))):
            raise AssertionError("it started")
    assert caught.value.exit_code == 1
    assert "cannot be used: Not a directory" in caught.value.message
    assert "--home" in caught.value.message


@pytest.mark.anyio
async def test_an_orphan_with_the_lock_is_named_with_what_ends_it(home: Home) -> None:
    with process(home.root, LEAVE_ORPHAN) as (first, words):
        first.send_signal(signal.SIGKILL)
        first.wait()
        try:
            with pytest.raises(BootRefused, match=f"kill -9 {words[1]}"):
                async with open_tree(keeper(home)):
                    raise AssertionError("it started")
        finally:
            os.kill(int(words[1]), signal.SIGKILL)
