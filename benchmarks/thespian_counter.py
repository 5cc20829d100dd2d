"""The actor of M4 in Thespian, which wants it in a module of its own."""

from __future__ import annotations

from thespian.actors import Actor


class Counter(Actor):
    """Counts."""

    def __init__(self) -> None:
        super().__init__()
        self._handled = 0

    def receiveMessage(self, message: object, sender: object) -> None:  # noqa: N802  (Thespian's name)
        if message == 1:
            self._handled += 1
            self.send(sender, self._handled)
