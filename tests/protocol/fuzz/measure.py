"""How many inputs there were, how fast, and whether memory grew with them."""

from __future__ import annotations

import gc
import json
import os
import resource
import time
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
MOST = 1.05
"""Memory after all inputs, as a multiple of that after a tenth of them."""


def resident() -> int:
    """Return the resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Measure:
    """Counts the inputs of one target, and reports when all have been."""

    def __init__(self, name: str, inputs: int, most: float | None = MOST) -> None:
        """Without ``most`` the memory is told and held against nothing."""
        self._most = most
        self.count = 0
        self._name = name
        self._inputs = inputs
        self._begun = time.monotonic()
        self._after_a_tenth = 0

    def one_more(self) -> None:
        """Count an input; the process ends after the last: 0 if memory stayed where it was, else 1."""
        self.count += 1
        if self.count == self._inputs // 10:
            self._after_a_tenth = resident()
        if self.count == self._inputs:
            self._report()

    def _report(self) -> None:
        after = resident()
        ratio = after / self._after_a_tenth
        seconds = time.monotonic() - self._begun
        mib = {"after a tenth": self._after_a_tenth / (1 << 20), "after all": after / (1 << 20)}
        detail = {
            "inputs": self.count,
            "per_second": round(self.count / seconds),
            "resident_mib": {when: round(size, 1) for when, size in mib.items()},
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        met = self._most is None or ratio <= self._most
        line = {
            "name": f"fuzz {self._name}",
            "ratio": round(ratio, 3),
            "target": self._most,
            "met": met,
            "detail": detail,
        }
        print(json.dumps(line), flush=True)
        os._exit(0 if met else 1)  # the fuzzer's own way out says nothing
