"""Compares, 20 times a second, what ``status`` says with what the kernel knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.system.harness import Daemon
from tests.system.kernel import Sight, trainer

Status = dict[str, Any]

EVERY = 0.05
LAG = 1.0
"""Seconds for which ``status`` may be behind."""


class Sampler(threading.Thread):
    """Writes down in ``lies`` each moment at which ``status`` had been wrong for longer than ``LAG``.

    Three claims are held against the kernel. ``training``: a training process lives, and works. ``idle``, ``paused``:
    no training process works while a file lies in ``queue/processing/``. ``trainer_pid``: that is the training process.
    """

    def __init__(self, daemon: Callable[[], int], ask: Callable[[], Status | None], processing: Path) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._ask = ask
        self._processing = processing
        self._over = threading.Event()
        self._seen: Sight | None = None
        self._worked_at = self._true_at = self._not_idle_at = self._right_pid_at = time.monotonic()
        self.lies: list[str] = []
        self.said: set[str] = set()
        self.samples = 0

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(EVERY):
            said, sight = self._ask(), trainer(self._daemon())
            now = time.monotonic()
            works = sight is not None and sight.worked_since(self._seen)
            self._seen = sight
            if said is None:  # between two daemons nothing is said, so nothing is wrong
                self._true_at = self._not_idle_at = self._right_pid_at = now
                continue
            self.samples += 1
            self.said.add(said["state"])
            self._judge(said, works, now)

    def _judge(self, said: Status, works: bool, now: float) -> None:
        if said["state"] != "training" or works:
            self._true_at = now
        elif now - self._true_at > LAG:
            self.lies.append(f"training for {now - self._true_at:.2f} s, but no training process works: {said}")
        if works:
            self._worked_at = now
        on_a_file = now - self._worked_at < LAG / 4 and any(self._processing.iterdir())
        if said["state"] not in ("idle", "paused") or not on_a_file:
            self._not_idle_at = now
        elif now - self._not_idle_at > LAG:
            self.lies.append(
                f"{said['state']}, but a training process works for {now - self._not_idle_at:.2f} s: {said}"
            )
        pid = self._seen.pid if self._seen else None
        if said["trainer_pid"] == pid or (said["trainer_pid"] is None and said["state"] != "training"):
            self._right_pid_at = now
        elif now - self._right_pid_at > LAG:
            self.lies.append(f"the training process is {pid} for {now - self._right_pid_at:.2f} s: {said}")


@contextmanager
def status_is_true(it: Daemon) -> Iterator[Sampler]:
    """Watch ``status`` through all that the block does to the daemon; fail if it was wrong for longer than ``LAG``."""
    with Sampler(lambda: it.pid, it.try_status, it.home.processing) as watched:
        yield watched
    assert watched.samples > 20, "it was hardly looked at"
    assert watched.lies == []
