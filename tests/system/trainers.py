"""Training processes that are not quite right."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import psutil

from actors.trainer import rng
from actors.trainer.actor import TrainerActor
from protocol.records import Head
from supervisor.durable import Disk


class DyingDisk(Disk):
    """Kills the daemon, and its own process with it, when HEAD is to name a checkpoint that holds a part of a job."""

    def replace(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == "HEAD":
            checkpoint = msgspec.json.decode(data, type=Head).checkpoint
            if checkpoint is not None and not checkpoint.startswith("step-00000000"):
                psutil.Process().parents()[1].kill()  # the daemon stands above the process host
                threading.Event().wait()  # for what comes now by itself
        super().replace(path, data, mode)


class DyingTrainer(TrainerActor):
    """TrainerActor on such a disk."""

    def __init__(self, home: str, config: dict[str, Any], revision: int) -> None:
        super().__init__(home, config, revision, DyingDisk())


class ForgetfulTrainer(TrainerActor):
    """TrainerActor that does not put the random states of a checkpoint back."""

    def __init__(self, home: str, config: dict[str, Any], revision: int) -> None:
        super().__init__(home, config, revision)
        rng.restore = lambda tensors, state: None
