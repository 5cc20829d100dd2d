"""InboxWatcher and QueueManager together: what lies where in the end."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.board import Board
from actors.inbox.watcher import InboxWatcher
from actors.queue.manager import QueueManager
from actors.settings_store import ConfigStore
from protocol.config import Config, InboxSection
from protocol.home import Home
from protocol.messages.inbox import Rescan
from protocol.messages.queue import GetQueue, Retry
from supervisor import ChildSpec, Disk, HandlerFailed, SupervisorSpec, Tree, open_tree
from supervisor.testing import eventually

pytestmark = pytest.mark.anyio

ROW = b'{"text": "one"}\n'
ID = "01jdh2x9a7k3c5e8f0g1h2j3k4"


@asynccontextmanager
async def daemon(home: Home) -> AsyncIterator[tuple[Tree, Board]]:
    for folder in home.folders:
        folder.mkdir(parents=True, exist_ok=True)
    store, board = ConfigStore(Config(inbox=InboxSection(settle=0))), Board()
    spec = SupervisorSpec(
        "root",
        [
            ChildSpec("QueueManager", lambda: QueueManager(home, store, Disk(), board)),
            ChildSpec("InboxWatcher", lambda: InboxWatcher(home, store, Disk(), board)),
        ],
    )
    async with open_tree(spec) as tree:
        yield tree, board


def drop(home: Home, name: str, content: bytes = ROW) -> None:
    hidden = home.inbox / ".hidden.tmp"
    hidden.write_bytes(content)
    hidden.rename(home.inbox / name)


async def test_good_files_stand_in_their_lines_and_bad_ones_in_failed_with_their_lines(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with daemon(home) as (tree, board):
        drop(home, "good.jsonl")
        drop(home, f"@{ID}-high@urgent.jsonl")
        drop(home, "bad.jsonl", ROW + b"{\n" + ROW + b"[]\n")
        drop(home, "table.csv", b"text\n")
        await tree.ref("InboxWatcher").call(Rescan(), timeout=10)
        jobs = await tree.ref("QueueManager").call(GetQueue())
        assert [(job.file, job.priority, job.state) for job in jobs[:2]] == [
            ("urgent.jsonl", "high", "queued"),
            ("good.jsonl", "normal", "queued"),
        ]
        assert jobs[0].id == ID
        assert (home.line("high") / "urgent.jsonl").read_bytes() == ROW
        assert (home.line("normal") / "good.jsonl").read_bytes() == ROW
        report = json.loads((home.failed / "bad.jsonl.error.json").read_bytes())
        assert report["lines"] == [2, 4]
        assert report["reason"].count("line 2: ") == report["reason"].count("line 4: ") == 1
        assert (home.failed / "table.csv").exists()
        assert "does not end in .jsonl" in json.loads((home.failed / "table.csv.error.json").read_bytes())["reason"]
        await eventually(lambda: board.inbox_files == 0)


async def test_a_submit_id_twice_is_one_job_and_the_second_file_goes(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with daemon(home) as (tree, _):
        for _ in range(2):
            drop(home, f"@{ID}-normal@a.jsonl")
            await tree.ref("InboxWatcher").call(Rescan(), timeout=10)
        assert len(await tree.ref("QueueManager").call(GetQueue())) == 1
        assert list(home.inbox.iterdir()) == []


async def test_one_name_twice_is_two_jobs_and_both_payloads_are_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with daemon(home) as (tree, _):
        for count in (1, 2):
            drop(home, "a.jsonl", ROW * count)
            await tree.ref("InboxWatcher").call(Rescan(), timeout=10)
        jobs = await tree.ref("QueueManager").call(GetQueue())
        assert [(job.file, job.samples) for job in jobs] == [("a.jsonl", 1), ("a.jsonl", 2)]
        assert sorted(path.read_bytes() for path in home.line("normal").iterdir()) == [ROW, ROW * 2]


async def test_a_name_that_is_not_utf8_becomes_a_job_that_can_be_shown(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with daemon(home) as (tree, _):
        drop(home, os.fsdecode(b"caf\xe9.jsonl"))
        await tree.ref("InboxWatcher").call(Rescan(), timeout=10)
        (job,) = await tree.ref("QueueManager").call(GetQueue())
        assert job.file == "caf\\xe9.jsonl"
        (payload,) = home.line("normal").iterdir()
        assert payload.read_bytes() == ROW


@pytest.mark.parametrize("kind", ["link", "pipe", "socket"])
async def test_what_is_no_regular_file_is_put_away_unopened_with_its_reason_once(tmp_path: Path, kind: str) -> None:
    home = Home(tmp_path)
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(ROW)
    async with daemon(home) as (tree, board):
        path = home.inbox / "a.jsonl"
        if kind == "link":
            path.symlink_to(secret)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            with socket.socket(socket.AF_UNIX) as odd:
                odd.bind(str(path))
        for _ in range(3):
            await tree.ref("InboxWatcher").call(Rescan(), timeout=10)
        assert list(home.inbox.iterdir()) == []
        parked = home.failed / "a.jsonl"
        assert parked.is_symlink() or parked.is_fifo() or parked.is_socket()
        report = json.loads((home.failed / "a.jsonl.error.json").read_bytes())
        assert report["reason"].startswith("not a regular file")
        (job,) = await tree.ref("QueueManager").call(GetQueue())
        assert (job.id, job.state) == (report["id"], "failed")
        assert secret.read_bytes() == ROW
        assert board.troubles == {}
        with pytest.raises(HandlerFailed, match="submit it again"):
            await tree.ref("QueueManager").call(Retry(job.id))
    async with daemon(home) as (tree, _):
        (same,) = await tree.ref("QueueManager").call(GetQueue())
        assert same == job, "a restart changes nothing about it"
        assert sorted(path.name for path in home.failed.iterdir()) == ["a.jsonl", "a.jsonl.error.json"]
