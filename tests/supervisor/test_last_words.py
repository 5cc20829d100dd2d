"""What a process said before its end is heard, also if the notice of its end comes first."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from supervisor import ChildSpec, Killed
from supervisor.testing import EventLog
from tests.supervisor.last_words import COUNT, Listener, SpeakAndDie, Words, speaker
from tests.supervisor.processes import tree_of, until_sync

pytestmark = pytest.mark.anyio


def speak_unheard(when: Path, pid: int) -> None:
    """Hold the event loop until the process has said it all and ended, and its host has had the time to say so."""
    when.touch()
    until_sync(lambda: not os.path.exists(f"/proc/{pid}"))
    time.sleep(0.1)


async def test_all_that_it_said_is_heard_and_why_it_ended_is_known(tmp_path: Path) -> None:
    when = tmp_path / "when"
    async with tree_of(ChildSpec("Listener", Listener), speaker()) as tree:
        log = EventLog(tree.stream, ["steps", "lifecycle"])
        tree.ref("Speaker").cast(SpeakAndDie(str(when)))
        speak_unheard(when, (await log.wait_for(speaks=True))["pid"])
        exited = await log.wait_for(event="exited", actor="Speaker")
        assert exited["reason"] == str(Killed(9))
        assert await tree.ref("Listener").call(Words()) == [*range(COUNT), COUNT]


async def test_an_ack_that_was_not_heard_before_the_end_is_one(tmp_path: Path) -> None:
    when = tmp_path / "when"
    async with tree_of(ChildSpec("Listener", Listener), speaker(str(when))) as tree:
        log = EventLog(tree.stream, ["steps", "lifecycle"])
        state = tree.introspection.state("Speaker")
        assert state.pid is not None
        os.kill(state.pid, signal.SIGKILL)
        speak_unheard(when, (await log.wait_for(life=2))["pid"])
        exited = await log.wait_for(event="exited", actor="Speaker", count=2)
        assert exited["reason"] == str(Killed(9))
        assert log.read(event="started", actor="Speaker", incarnation=2)
        assert await tree.ref("Listener").call(Words()) == [*range(COUNT)]
        await log.wait_for(event="started", actor="Speaker", incarnation=3)
