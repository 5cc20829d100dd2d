"""Waiting that outlives a restart of the daemon, and ends when the daemon stays away."""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import pytest

from protocol.cli import commands, talk
from protocol.cli.failure import NO_DAEMON, CommandFailed
from protocol.cli.inbox_copy import put
from protocol.cli.place import Place
from protocol.home import Home
from protocol.ids import new_ids
from protocol.messages.queue import GetJob, WaitAccepted
from tests.protocol.cli.conftest import environment


def test_a_wait_goes_on_when_the_daemon_comes_back(home: Home, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("x")
    (id,) = islice(new_ids(), 1)
    put(tmp_path / "x.jsonl", home.inbox, id, "normal")
    answers = []
    place = Place(str(home.root), str(home.socket))
    waiting = threading.Thread(
        target=lambda: answers.append(talk.wait_for(place, "QueueManager", WaitAccepted(submit_id=id)))
    )
    waiting.start()
    daemon = subprocess.Popen([sys.executable, "-P", "-m", "tests.protocol.cli.canned", home.root], env=environment())
    try:
        waiting.join(timeout=20)
        assert [answer.id for answer in answers] == [id]
    finally:
        daemon.kill()
        daemon.wait()


def test_a_wait_ends_when_the_daemon_stays_away(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "BACK_WITHIN", 0.3)
    with pytest.raises(CommandFailed) as failed:
        talk.wait_for(Place(str(home.root), str(home.socket)), "QueueManager", WaitAccepted(submit_id="0" * 26))
    assert failed.value.code == NO_DAEMON


def test_a_refusal_ends_a_wait(home: Home, daemon: subprocess.Popen[bytes]) -> None:
    with pytest.raises(CommandFailed, match="no job is called x"):
        talk.wait_for(Place(str(home.root), str(home.socket)), "QueueManager", GetJob(job="x"))


def test_a_daemon_that_goes_while_submit_waits_loses_nothing(
    home: Home, daemon: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "BACK_WITHIN", 0.3)
    (tmp_path / "fatal.jsonl").write_text("daemon, die")
    with pytest.raises(CommandFailed) as failed:
        commands.run(["submit", str(tmp_path / "fatal.jsonl"), "--home", str(home.root)])
    assert failed.value.code == NO_DAEMON
    assert "what was submitted is safe" in failed.value.next
    assert [path.read_text() for path in home.inbox.iterdir()] == ["daemon, die"]
