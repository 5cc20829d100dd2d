"""What EchoTrainer has for a model: a running sha256 of everything it was shown, and of random draws between.

A row trained twice, left out or out of order, and a random draw too many after a restart, all change every later value:
exactness shows in ``weights_sha256`` as it does for a network, and costs microseconds.
"""

from __future__ import annotations

import hashlib
import random
import struct
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from actors.inbox.rows import Row
from actors.testing.floats import FloatCodec
from actors.trainer.engine import Encoded, Groups, StepResult
from actors.trainer.tensorfile import pieces
from protocol.config import TrainingSection

DECAY = 0.9
BYTES = 1 << 16
"""More than a checkpoint or a version of Echo takes, random state included."""
STEP_SECONDS = 0.01
SLICE = 0.05
"""Seconds between two signs of life in a long step."""
CRASH = b"echo crash"


class EchoCrash(Exception):
    """A row asked for it."""


class EchoEncoder:
    """Bytes for tokens, all of them trained; neither a tokenizer nor a length limit."""

    def encode(self, row: Row) -> Encoded:
        """Return the bytes of the row's representation."""
        data = repr(row).encode()
        return Encoded(list(data), [True] * len(data))


class EchoLearner:
    """Sixteen numbers that stand for weights, sixteen for an optimizer, and a random generator.

    A step takes as many seconds as the file ``control`` says, read anew before each one; :data:`STEP_SECONDS` without
    it. A row that holds ``echo crash`` raises :class:`EchoCrash` in the step that takes it.
    """

    device = "echo"

    def __init__(
        self, chain: bytes, source: random.Random, method: Literal["full", "lora"], control: Path | None = None
    ) -> None:
        """``chain``: 32 bytes to begin with. ``source``: where random numbers come from."""
        self.method = method
        self.random = source
        self.chain = chain
        self._momentum = array("d", [0.0] * 16)
        self._warm_from = 0
        self._control = control

    def encoder(self, training: TrainingSection) -> EchoEncoder:
        return EchoEncoder()

    def begin_job(self, training: TrainingSection) -> list[str]:
        return []

    def step(
        self, rows: Sequence[Encoded], number: int, training: TrainingSection, beat: Callable[[], None]
    ) -> StepResult:
        """Take in the rows; the loss falls as they go by."""
        self._take_time(beat)
        digest = hashlib.sha256(self.chain)
        for row in rows:
            if CRASH in bytes(row.ids):
                raise EchoCrash(bytes(row.ids).decode())
            digest.update(bytes(row.ids) + self.random.randbytes(4))
        self.chain = digest.digest()
        self._momentum = array(
            "d", [DECAY * old + new for old, new in zip(self._momentum, self._numbers(), strict=True)]
        )
        rate = training.learning_rate * min(1.0, (number - self._warm_from + 1) / max(1, training.warmup_steps))
        seen = sum(len(row.ids) for row in rows)
        loss = 1.0 / (number + 1) + self._numbers()[0] / 2**24
        return StepResult(loss, sum(row.targets for row in rows), seen, self._momentum[0], rate)

    def capture(self) -> tuple[Groups, dict[str, Any]]:
        version, numbers, gauss = self.random.getstate()
        groups = {"weights": {"chain": self._numbers()}, "optimizer": {"momentum": self._momentum}}
        return groups, {"random": [version, list(numbers), gauss], "warm_from": self._warm_from}

    def restore(self, groups: Groups, state: Mapping[str, Any]) -> None:
        self.chain = struct.pack(">16H", *(int(number) for number in groups["weights"]["chain"]))
        self._momentum = array("d", groups["optimizer"]["momentum"])
        self._warm_from = int(state["warm_from"])
        version, numbers, gauss = state["random"]
        self.random.setstate((version, tuple(numbers), gauss))

    def rewarm(self, step: int) -> None:
        self._warm_from = step

    def save_version(self, folder: Path) -> None:
        """Write what stands for a model folder."""
        data = pieces({"chain": FloatCodec().raw(self._numbers())})
        (folder / "model.safetensors").write_bytes(b"".join(data))
        (folder / "config.json").write_text('{"model_type": "echo"}\n')

    def checkpoint_bytes(self) -> int:
        return BYTES

    def version_bytes(self) -> int:
        return BYTES

    def _numbers(self) -> array[float]:
        return array("d", struct.unpack(">16H", self.chain))

    def _take_time(self, beat: Callable[[], None]) -> None:
        asked = self._control is not None and self._control.exists()
        seconds = float(self._control.read_text()) if self._control is not None and asked else STEP_SECONDS
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))
            beat()
