"""The process dies before each durable step of whole sessions, and again at the next start: the outcome is the same."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from actors.trainer.port import Consolidate, Stop, Wish
from protocol.config import Config
from protocol.home import Home
from protocol.messages.queue import Claimed
from protocol.messages.trainer import ConsolidationResult
from supervisor.durable import Disk
from supervisor.testing.disks import FullDisk
from tests.actors.testing.runs import Killed, new_home, outcome, run, settings, two
from tests.actors.trainer.disks import SteppedDisk
from tests.actors.trainer.fake_port import FakePort

NEVER = 1 << 30


class MortalDisk(SteppedDisk):
    """Before step ``at``, and before every later one, its process is dead: not even cleaning up is done."""

    def __init__(self, at: int) -> None:
        def before(number: int, operation: str, path: Path) -> None:
            if number == at and operation == "write":  # a death in the middle of a write leaves half of it
                path.write_bytes(b'{"half":')
            if number >= at:
                raise Killed

        super().__init__(before)

    def _sync(self, path: Path, flags: int) -> None:
        """The process dies, the machine does not: what was written is there, synced or not."""


class Evening(FakePort):
    """Hands out the files, asks for the night's work once they are trained and published, then for a stop."""

    night: ConsolidationResult | None = None

    def wanted(self, job: str | None = None) -> Wish | None:
        if job is not None or not self.rested:
            return None
        return Consolidate("lease") if self.night is None else Stop()

    def consolidated(self, result: ConsolidationResult) -> None:
        self.night = result


def live(home: Home, config: Config, jobs: list[Claimed], disk: Disk) -> tuple[bool, list[Claimed]]:
    """Run one process; return whether it came to its end, and what the queue would hand out next."""
    port = Evening(config, jobs)
    with contextlib.suppress(Killed):
        run(home, port, disk)
        return True, []
    return False, [*port.awaiting, *port.jobs]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_death_before_any_step(tmp_path: Path, method: str) -> None:
    config = settings(method=method)
    undisturbed = new_home(tmp_path / "control")
    live(undisturbed, config, two(undisturbed), MortalDisk(NEVER))
    expected = outcome(undisturbed)
    at, ended = 0, False
    while not ended:
        at += 1
        home = new_home(tmp_path / f"home{at}")
        ended, jobs = live(home, config, two(home), MortalDisk(at))
        if not ended:
            _, jobs = live(home, config, jobs, MortalDisk(1 + at % 17))
            assert live(home, config, jobs, MortalDisk(NEVER))[0]
        found: Any = outcome(home)
        assert found == expected, f"died before durable step {at}"
        assert not [path for path in home.root.rglob(".*") if path.name.startswith((".tmp-", ".trash-"))]
    assert at > 60, "the list of steps has shrunk: is the disk still used for all of them?"


class TightDisk(FullDisk):
    """Full from a step on, until somebody waits for it."""

    def _sync(self, path: Path, flags: int) -> None:
        """See :class:`MortalDisk`."""


def test_a_disk_full_at_any_step_is_waited_for(tmp_path: Path) -> None:
    config = settings()
    undisturbed = new_home(tmp_path / "control")
    live(undisturbed, config, two(undisturbed), MortalDisk(NEVER))
    expected = outcome(undisturbed)
    at, met = 0, True
    while met:
        at += 1
        home = new_home(tmp_path / f"home{at}")
        disk = TightDisk(full_at=at)
        port = Evening(config, two(home))
        port.wait = lambda seconds, disk=disk: disk.make_room()  # type: ignore[misc]
        run(home, port, disk)
        assert outcome(home) == expected, f"full from durable step {at} on"
        met = len(disk.steps) >= at
    assert at > 60
