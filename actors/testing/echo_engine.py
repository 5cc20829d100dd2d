"""The engine of EchoTrainer: what torch is to the real trainer, in pure Python."""

from __future__ import annotations

import hashlib
import random
import struct
from array import array
from pathlib import Path

from actors.testing.echo_learner import EchoLearner
from actors.testing.floats import FloatCodec
from actors.trainer.engine import Learner, Unlike
from actors.trainer.tensorfile import contents
from protocol.config import Config
from protocol.home import Home


class EchoEngine:
    """The :class:`~actors.trainer.engine.Engine` of Echo. Its steps take as long as ``HOME/run/echo-step`` says."""

    codec = FloatCodec()

    def __init__(self, home: Home) -> None:
        self._control = home.run / "echo-step"

    def prepare(self, config: Config) -> None:
        """There is nothing to set."""

    def identity(self, config: Config) -> dict[str, str]:
        return {"echo": "1"}

    def load(self, config: Config) -> EchoLearner:
        return self._seeded(hashlib.sha256(f"echo {config.training.seed}".encode()).digest(), config)

    def reload(self, folder: Path, config: Config) -> EchoLearner:
        return self._seeded(_chain_in(folder), config)

    def merge(self, learner: Learner, folder: Path, config: Config) -> EchoLearner:
        assert isinstance(learner, EchoLearner)
        chain = _chain_in(folder)
        if chain != learner.chain:
            raise Unlike("the merged model says something else")
        return EchoLearner(chain, learner.random, config.training.method, self._control)

    def release(self) -> None:
        """There is no device."""

    def _seeded(self, chain: bytes, config: Config) -> EchoLearner:
        return EchoLearner(chain, random.Random(config.training.seed), config.training.method, self._control)


def _chain_in(folder: Path) -> bytes:
    with (folder / "model.safetensors").open("rb") as file:
        slot = contents(file)["chain"]
        file.seek(slot.begin)
        numbers = array("d", file.read(slot.end - slot.begin))
    return struct.pack(">16H", *map(int, numbers))
