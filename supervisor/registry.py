"""Names of one tree: the cell of each, and who watches it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary

from protocol.backend import Backend
from protocol.deadlines import Deadlines
from supervisor.clock import Clock
from supervisor.mailbox import Cell, LostWhy, Phase
from supervisor.monitor import Down
from supervisor.reasons import Reason, Shutdown


class Registry:
    """Finds the cell of a name, making it if need be, so that a ref may be taken before its actor starts.

    A cell that was forgotten lives on as long as a ref points at it, and is found again if the name comes back: a ref
    never goes stale (tqwewe/kameo#392).
    """

    def __init__(self, clock: Clock, backend: Backend) -> None:
        self._clock = clock
        self._deadlines = Deadlines(clock.monotonic, clock.call_later)
        self._backend = backend
        self._known: dict[str, Cell] = {}
        self._forgotten: WeakValueDictionary[str, Cell] = WeakValueDictionary()
        self.dead_letters: Counter[str] = Counter()
        """Messages that nobody handled, counted by reason."""

    def cell(self, name: str) -> Cell:
        """Return the cell of a name."""
        cell = self._known.get(name) or self._forgotten.get(name)
        if cell is None:
            cell = self._forgotten[name] = self._new(name)
        return cell

    def declare(self, name: str) -> Cell:
        """Make a name known: a child of it exists from now on, running or not."""
        cell = self._known.get(name)
        if cell is None:
            cell = self._known[name] = self._forgotten.get(name) or self._new(name)
            self._forgotten.pop(name, cell)  # not in both: weak references to very many actors take a good deal of room
        return cell

    def knows(self, name: str) -> bool:
        """Whether a child of this name exists, running or not."""
        return name in self._known

    def forget(self, name: str) -> None:
        """The child of this name is gone for good."""
        cell = self._known.pop(name, None)
        if cell is not None:
            self._forgotten[name] = cell

    def watch(self, watcher: Hashable, name: str, notify: Callable[[Down], None]) -> None:
        """Call ``notify`` at each end of an incarnation of ``name``; at once if there is none and none will come."""
        cell = self.cell(name)
        if cell.watchers is None:
            cell.watchers = {}
        cell.watchers[watcher] = notify
        if cell.phase is Phase.ENDED:
            notify(cell.last_exit or Down(name, Shutdown("not running"), 0))

    def unwatch(self, watcher: Hashable, name: str) -> None:
        """Take a watcher off. Harmless if it was none."""
        cell = self.cell(name)
        if cell.watchers is not None:
            cell.watchers.pop(watcher, None)
            if not cell.watchers:
                cell.watchers = None

    def announce(self, cell: Cell, reason: Reason) -> None:
        """Tell the watchers of a name that its incarnation has fully ended."""
        cell.last_exit = Down(cell.name, reason, cell.incarnation)
        for notify in list((cell.watchers or {}).values()):
            notify(cell.last_exit)

    def _new(self, name: str) -> Cell:
        return Cell(name, self._clock, self._deadlines, self._backend, self._count_dead_letter)

    def _count_dead_letter(self, _name: str, _message: str, why: LostWhy) -> None:
        self.dead_letters[why] += 1
