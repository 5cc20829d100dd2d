"""The socket on the file system: how it appears, is taken over, and goes."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from protocol import server
from protocol.aclient import connect
from protocol.client import Client
from protocol.handler import Peer
from protocol.listening import SocketTaken, listening, may_command
from protocol.quick import PATH_LIMIT, ask
from tests.protocol.house import Echo, House, in_thread, serving, until

pytestmark = pytest.mark.anyio


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def path_of_length(folder: Path, length: int) -> Path:
    """A path of exactly this many bytes, with its folder made."""
    name = "control.sock"
    rest = length - len(os.fsencode(folder)) - len(name) - 2
    while rest > 200:
        folder = folder / ("d" * 200)
        rest -= 201
    folder = folder / ("d" * rest)
    folder.mkdir(parents=True)
    path = folder / name
    assert len(os.fsencode(path)) == length
    return path


async def test_only_the_owner_can_reach_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    before = os.umask(0)
    try:
        with listening(path):
            assert mode(path) == 0o600
            assert mode(path.parent) == 0o700
            assert os.listdir(path.parent) == ["control.sock"]
    finally:
        os.umask(before)
    assert os.listdir(path.parent) == []


async def test_own_user_and_root_may_command_and_nobody_else() -> None:
    assert may_command(Peer(pid=1, uid=os.geteuid(), gid=5))
    assert may_command(Peer(pid=1, uid=0, gid=5))
    assert not may_command(Peer(pid=1, uid=os.geteuid() + 1, gid=os.getegid()))


@pytest.mark.parametrize("length", [PATH_LIMIT, PATH_LIMIT + 1, 700])
async def test_a_path_of_any_length(tmp_path: Path, length: int) -> None:
    path = path_of_length(tmp_path, length)
    async with serving(path, House()):
        async with connect(path) as client:
            assert await client.call("House", Echo("async")) == "async"
        with await in_thread(Client.connect, path) as blocking:
            assert await in_thread(blocking.call, "House", Echo("blocking")) == "blocking"
        assert await in_thread(ask, path, "House", {"type": "echo", "text": "quick"}) == "quick"
        with pytest.raises(SocketTaken), listening(path):
            pass
    assert os.listdir(path.parent) == []


async def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving(Path("control.sock"), House()), connect("control.sock") as client:
        assert await client.call("House", Echo("x")) == "x"
    assert os.listdir(tmp_path) == []


async def test_what_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    (tmp_path / f".control.sock.{os.getpid()}").touch()
    async with serving(path, House()), connect(path) as client:
        assert await client.call("House", Echo("x")) == "x"
    assert os.listdir(tmp_path) == []


async def test_a_live_server_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, House()), connect(path) as client:
        with pytest.raises(SocketTaken, match="another server answers"), listening(path):
            pass
        assert await client.call("House", Echo("x")) == "x"


async def test_a_live_server_with_a_full_backlog_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        with pytest.raises(SocketTaken), listening(path):
            pass
        for each in waiting:
            each.close()


@pytest.mark.parametrize("kind", ["file", "folder", "symlink"])
async def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "control.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/nowhere")
    with pytest.raises(SocketTaken, match="something else than a socket"), listening(path):
        pass
    assert path.is_symlink() or path.exists()


async def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        with pytest.raises(OSError, match="No space"), listening(tmp_path / "control.sock"):
            pass
    assert os.listdir(tmp_path) == []


async def test_at_its_end_it_removes_its_own_file_only(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listening(path):
        path.unlink()
        with listening(path) as successor:
            pass_on = path.lstat().st_ino
            with listening(tmp_path / "other.sock"):
                pass
            assert successor.in_place
            assert path.lstat().st_ino == pass_on
            successor.socket.listen()
    async with serving(path, House()):
        path.rename(tmp_path / "moved")
        path.write_text("not ours")
    assert path.read_text() == "not ours"


async def test_a_removed_socket_is_published_anew_and_nobody_connected_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WATCH_EVERY", 0.02)
    path = tmp_path / "control.sock"
    async with serving(path, House()), connect(path) as client:
        path.unlink()
        await until(path.is_socket)
        assert await client.call("House", Echo("x")) == "x"
        async with connect(path) as newcomer:
            assert newcomer.server == client.server
            assert await newcomer.call("House", Echo("y")) == "y"


async def test_a_successor_that_published_over_us_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listening(path) as first:
        os.rename(path, tmp_path / "aside")
        async with serving(path, House()):
            assert not first.in_place
            first.close()
            async with connect(path) as client:
                with anyio.fail_after(5):
                    assert await client.call("House", Echo("x")) == "x"
