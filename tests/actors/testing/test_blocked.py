"""What people must decide: ``status`` says blocked with commands, and those commands end it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import pytest

from actors.daemon import Daemon, open_daemon
from actors.testing.echo import ECHO, ECHO_PRELOAD
from actors.trainer.shelf import Shelf
from protocol.home import Home
from protocol.messages.system import GetStatus, Status
from protocol.records import read_head
from supervisor.testing import eventually
from tests.actors.testing.test_echo_daemon import SETTINGS, drop, published

pytestmark = pytest.mark.anyio


async def status(daemon: Daemon) -> Status:
    return await daemon.tree.ref("ControlSocket").call(GetStatus())


async def blocked(daemon: Daemon) -> str:
    with anyio.fail_after(30):
        while (now := await status(daemon)).state != "blocked" or "stokehold stop" not in (now.reason or ""):
            await anyio.sleep(0.02)
    return now.reason or ""


def command(reason: str, begins: str) -> str:
    """Return one command of a text, as a user would copy it."""
    return reason.split(begins)[1].split(" , ")[0]


async def all_torn(home: Home) -> str:
    """Train a file, tear all checkpoints, and return what a daemon with another file says of it."""
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "first", 9)
        await eventually(lambda: published(daemon, 1), within=60)  # first published
    for entry in Shelf(home).entries():
        (home.checkpoints / entry.name / "state.json").write_text("{")
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "second", 9)
        return await blocked(daemon)


async def test_all_torn_and_begun_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "a home")
    reason = await all_torn(home)
    before = {path.name for path in home.checkpoints.iterdir()}
    assert all(name.startswith(".torn-") for name in before), "nothing is trained meanwhile"
    lineage = read_head(home)
    subprocess.run(["sh", "-c", command(reason, "begin again from the base model: ")], check=True)
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        await eventually(lambda: published(daemon, 2), within=60)  # both trained, from the base
    head = read_head(home)
    assert head is not None and lineage is not None and head.checkpoint is not None
    assert head.lineage != lineage.lineage
    assert {entry.file for entry in Shelf(home).ledger(head.checkpoint).committed} == {"first.jsonl", "second.jsonl"}


async def test_all_torn_and_a_backup_put_back(tmp_path: Path) -> None:
    home, backup = Home(tmp_path / "home"), tmp_path / "backup"
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "zeroth", 9)
        await eventually(lambda: published(daemon, 1), within=60)  # zeroth published
    head = read_head(home)
    assert head is not None and head.checkpoint is not None
    subprocess.run(["cp", "-a", home.checkpoints / head.checkpoint, backup], check=True)
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "first", 9)
        await eventually(lambda: published(daemon, 2), within=60)  # first published
    for entry in Shelf(home).entries():
        (home.checkpoints / entry.name / "state.json").write_text("{")
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "second", 9)
        reason = await blocked(daemon)
    copy = command(reason, "put a whole one back: ").replace("BACKUP/NAME", str(backup)) + head.checkpoint
    subprocess.run(["sh", "-c", copy], check=True)
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        await eventually(lambda: published(daemon, 3), within=60)  # gone on from the backup


async def test_head_is_gone_and_the_newest_is_adopted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "first", 9)
        await eventually(lambda: published(daemon, 1), within=60)  # first published
    before = read_head(home)
    home.head.unlink()
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        drop(home, "second", 9)
        reason = await blocked(daemon)
    subprocess.run(["sh", "-c", command(reason, "go on from the newest whole one: ")], check=True)
    head = read_head(home)
    assert head is not None and before is not None
    assert (head.lineage, head.checkpoint, head.version) == (before.lineage, before.checkpoint, before.version)
    async with open_daemon(home.root, SETTINGS, trainer=ECHO, preload=ECHO_PRELOAD) as daemon:
        await eventually(lambda: published(daemon, 2), within=60)  # second trained
