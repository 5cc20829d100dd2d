"""What a session does when its disk is full, and when it is broken."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from actors.trainer.session import Session
from actors.trainer.torch_engine import TorchEngine
from protocol.messages.disk import Purpose
from protocol.messages.queue import Committed
from protocol.records import read_head
from supervisor.durable import Disk
from tests.actors.trainer.fake_port import settings
from tests.actors.trainer.runs import again, fresh, held, leftovers, run, stop_at


def test_a_full_disk_is_waited_for_and_loses_nothing(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    steps_seen: list[tuple[int, str | None]] = []

    def room(purpose: Purpose) -> bool:
        full = purpose == "save" and port.waits < 3 and any(one.global_step for one in port.steps)
        steps_seen.append((port.steps[-1].global_step, port.steps[-1].blocked))
        return not full

    port.room = room
    run(home, port)
    assert port.waits == 3
    assert any(one.blocked == "the disk is full" for one in port.steps)
    assert port.steps[-1].blocked is None
    assert len(held(home)[1].committed) == 2


class FullDisk(Disk):
    """Meets ENOSPC as often as told, at the manifest of a checkpoint past the first."""

    def __init__(self, times: int) -> None:
        self.times = times

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        if self.times and "step-00000000" not in str(path) and "checkpoints" in str(path):
            self.times -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().write(path, data, mode)


def test_enospc_while_saving_is_told_and_tried_again(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    Session(home, FullDisk(3), port, TorchEngine()).run()
    assert [one[0] for one in port.of("write failed")] == ["write failed"] * 3
    assert port.waits == 3
    assert len(held(home)[1].committed) == 2
    assert leftovers(home) == []


def test_a_stop_draws_on_its_reserve_and_is_not_held_up_by_a_full_disk(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    port.asks = stop_at(port, 3)
    port.room = lambda purpose: purpose == "stop" or not any(one.global_step for one in port.steps)
    run(home, port)
    assert port.of(Committed)[-1].step == 3
    second = again(port)
    second.asks = stop_at(second, 5)
    second.room = lambda purpose: False
    run(home, second)
    assert second.waits == 0
    head = read_head(home)
    assert head is not None
    assert head.checkpoint is not None
    assert head.checkpoint.startswith("step-00000003"), "nothing could be written; what is there stands"


def test_a_broken_disk_is_no_full_disk(small: str, tmp_path: Path) -> None:
    class Broken(Disk):
        def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    home, port = fresh(tmp_path / "home", settings(small))
    with pytest.raises(OSError, match="Input/output"):
        Session(home, Broken(), port, TorchEngine()).run()
