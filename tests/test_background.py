"""Run in the background of a shell, where Ctrl-C is ignored, the suite starts programs that hear it all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASK = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"


def test_a_program_that_a_test_starts_hears_ctrl_c() -> None:
    assert subprocess.run([sys.executable, "-S", "-c", ASK], check=False).returncode == 0


def test_so_it_is_in_the_background() -> None:
    inner = f"{__file__}::{test_a_program_that_a_test_starts_hears_ctrl_c.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", inner],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
