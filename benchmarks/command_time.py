"""How long a command takes, from its start to its end, as somebody who types it waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from protocol.home import Home

STOKEHOLD = str(Path(sys.executable).with_name("stokehold"))
PYTHON_AND_NOTHING = [sys.executable, "-c", "pass"]


def seconds(command: list[str], home: Home) -> Callable[[], float]:
    """Return a measure of the command's whole process.

    Bytecode is kept, as everywhere but where PYTHONDONTWRITEBYTECODE is set: compiling is not what is measured.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["STOKEHOLD_HOME"] = str(home.root)

    def measure() -> float:
        begun = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begun

    return measure
