"""Compares, 20 times a second, what ``status`` says with what the kernel knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from protocol.home import Home
from protocol.messages.common import Priority
from tests.system.harness import Daemon
from tests.system.kernel import Sight, trainer

Status = dict[str, Any]

LINES: tuple[Priority, ...] = ("high", "normal", "low")
EVERY = 0.05
LAG = 1.0
"""Seconds for which ``status`` may be behind."""


class Sampler(threading.Thread):
    """Writes down in ``lies`` each moment at which ``status`` had been wrong for longer than ``LAG``.

    These claims are held against the kernel. ``training``: a training process lives, and works. ``paused``: none works
    while a file lies in ``queue/processing/``. ``idle``: no file lies there or in a line. ``trainer_pid``: that is the
    training process.
    """

    def __init__(self, daemon: Callable[[], int], ask: Callable[[], Status | None], home: Home) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._ask = ask
        self._home = home
        self._over = threading.Event()
        self._seen: Sight | None = None
        self._worked_at = time.monotonic()
        self._right_at: dict[str, float] = {}
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
                self._right_at.clear()
                continue
            self.samples += 1
            self.said.add(said["state"])
            self._judge(said, works, now)

    def _judge(self, said: Status, works: bool, now: float) -> None:
        if works:
            self._worked_at = now
        state, claimed = said["state"], said["trainer_pid"]
        pid = self._seen.pid if self._seen else None
        wrong = {
            "training, but no training process works": state == "training" and not works,
            "paused, but a training process works": (
                state == "paused" and now - self._worked_at < LAG / 4 and any(self._home.processing.iterdir())
            ),
            "idle, but files wait": state == "idle" and self._files_wait(),
            "another training process": claimed != pid and (claimed is not None or state == "training"),
        }
        for what, is_wrong in wrong.items():
            since = self._right_at.setdefault(what, now)
            if not is_wrong:
                self._right_at[what] = now
            elif now - since > LAG:
                self.lies.append(f"{what}, for {now - since:.2f} s: {said}; the kernel knows {pid}")

    def _files_wait(self) -> bool:
        return any(any(folder.iterdir()) for folder in (self._home.processing, *map(self._home.line, LINES)))


@contextmanager
def status_is_true(it: Daemon) -> Iterator[Sampler]:
    """Watch ``status`` through all that the block does to the daemon; fail if it was wrong for longer than ``LAG``."""
    with Sampler(lambda: it.pid, it.try_status, it.home) as watched:
        yield watched
    assert watched.samples > 20, "it was hardly looked at"
    assert watched.lies == []
