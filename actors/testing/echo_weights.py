"""What EchoTrainer has for a model: a running sha256 of everything it was shown, and of random draws between.

A row trained twice, left out or out of order, and a random draw too many after a restart, all change every later value:
exactness shows in ``weights_sha256`` as it does for a network, and costs microseconds.
"""

from __future__ import annotations

import hashlib
import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.inbox.rows import Row
from actors.testing.floats import FloatCodec
from actors.trainer.masks import Encoded, Encoder
from actors.trainer.tensorfile import pieces

DECAY = 0.9


class EchoWeights:
    """Sixteen numbers that stand for weights, sixteen for an optimizer, and a random generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._chain = hashlib.sha256(f"echo {seed}".encode()).digest()
        self._momentum = array("d", [0.0] * 16)

    def step(self, rows: Sequence[Encoded]) -> float:
        """Take in the rows of one optimizer step; return a loss that falls as they go by."""
        digest = hashlib.sha256(self._chain)
        for row in rows:
            digest.update(bytes(row.ids) + self._random.randbytes(4))
        self._chain = digest.digest()
        self._momentum = array(
            "d", [DECAY * old + new for old, new in zip(self._momentum, self._numbers(), strict=True)]
        )
        return 1.0 + self._numbers()[0] / 2**16

    def capture(self) -> tuple[dict[str, dict[str, array[float]]], dict[str, Any]]:
        """Return tensors and state for a checkpoint."""
        version, numbers, gauss = self._random.getstate()
        groups = {"weights": {"chain": self._numbers()}, "optimizer": {"momentum": self._momentum}}
        return groups, {"random": [version, list(numbers), gauss]}

    def restore(self, groups: Mapping[str, Mapping[str, array[float]]], state: Mapping[str, Any]) -> None:
        """Become what a checkpoint holds."""
        self._chain = struct.pack(">16H", *(int(number) for number in groups["weights"]["chain"]))
        self._momentum = array("d", groups["optimizer"]["momentum"])
        version, numbers, gauss = state["random"]
        self._random.setstate((version, tuple(numbers), gauss))

    def save_version(self, folder: Path) -> None:
        """Write what stands for a model folder."""
        data = pieces({"chain": FloatCodec().raw(self._numbers())})
        (folder / "model.safetensors").write_bytes(b"".join(data))
        (folder / "config.json").write_text('{"model_type": "echo"}\n')

    def _numbers(self) -> array[float]:
        return array("d", struct.unpack(">16H", self._chain))


class EchoEncoder(Encoder):
    """Bytes for tokens, all of them trained; neither a tokenizer nor a length limit."""

    def __init__(self) -> None:
        """Nothing is needed."""

    def encode(self, row: Row) -> Encoded:
        """Return the bytes of the row's representation."""
        data = repr(row).encode()
        return Encoded(list(data), [True] * len(data))
