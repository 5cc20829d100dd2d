"""Target: the server of ``live``, without the fuzzer, whose own memory grows: golden frames with changed bytes."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.protocol.fuzz.measure import Measure

SEED = 1
LONGEST = 512


def loop_over(folder: Path, one_input: Callable[[bytes], None]) -> None:
    """Call it for ever with the inputs of the folder, up to four bytes of each changed."""
    dice = random.Random(SEED)
    inputs = [path.read_bytes()[:LONGEST] for path in sorted(folder.iterdir())]
    while True:
        data = bytearray(dice.choice(inputs))
        for _ in range(dice.randrange(5)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        one_input(bytes(data))


class Plain(ModuleType):
    """What ``live`` needs of atheris, without coverage."""

    def instrument_imports(self, **_: Any) -> nullcontext[None]:
        return nullcontext()

    def Setup(self, words: list[str], one_input: Callable[[bytes], None]) -> None:  # noqa: N802, atheris calls it so
        self._folder, self._one_input = Path(words[-1]), one_input

    def Fuzz(self) -> None:  # noqa: N802
        loop_over(self._folder, self._one_input)


if __name__ == "__main__":
    sys.modules["atheris"] = Plain("atheris")
    from tests.protocol.fuzz import live

    live.measure = Measure("server without the fuzzer", int(sys.argv[1]))
    live.main()
