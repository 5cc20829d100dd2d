"""Children whose start and stop wait for the test's permission, so that an interleaving is chosen, not slept for.

The idea is that of ``supervisor_3`` and ``supervisor_deadlock`` in OTP's own suite.
"""

from __future__ import annotations

from collections import deque

import anyio

from supervisor.actor import Actor
from supervisor.reasons import Reason


class Gate:
    """What a gated actor asks before it goes on. It is open until :meth:`shut`; each answer may be an error.

    An actor of your own passes it in its ``on_start``: ``await self.gate.pass_start()``.

    Example::

        gate = Gate()
        async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))])) as tree:
            gate.shut()
            tree.inject_fault("a", ValueError("a fault of the test"))
            await settle()
            assert tree.view().children[0].status == "starting"
            gate.open()
            await settle()
            assert (tree.view().children[0].status, gate.starts) == ("running", 2)
    """

    def __init__(self) -> None:
        self.starts = 0
        """How many starts have been tried."""
        self.stops: list[Reason] = []
        """The reasons that ``on_stop`` saw, in order."""
        self.stop_gate = anyio.Event()
        """``on_stop`` waits for it; set at the beginning."""
        self.stop_gate.set()
        self._errors: deque[Exception] = deque()
        self._always: Exception | None = None
        self._open = anyio.Event()
        self._open.set()

    def shut(self) -> None:
        """Let the starts from now on wait."""
        if self._open.is_set():
            self._open = anyio.Event()

    def open(self) -> None:
        """Let the waiting start, and those to come, go on."""
        self._open.set()

    def hold_stop(self) -> None:
        """Let ``on_stop`` wait until ``stop_gate`` is set again."""
        self.stop_gate = anyio.Event()

    def fail_next(self, *errors: Exception) -> None:
        """Let the next starts fail with these errors, one each."""
        self._errors.extend(errors)

    def fail_always(self, error: Exception | None) -> None:
        """Let every start from now on fail with this error; ``None``: no more."""
        self._always = error

    async def pass_start(self) -> None:
        """Wait for the gate, and raise what the test has prepared. For the ``on_start`` of a gated actor."""
        self.starts += 1
        await self._open.wait()
        if self._errors:
            raise self._errors.popleft()
        if self._always is not None:
            raise self._always.with_traceback(None)


class GatedActor(Actor):
    """An actor that starts and stops when its gate lets it.

    Example::

        gate = Gate()
        gate.fail_next(OSError("no such device"))
        with pytest.raises(TreeStartFailed):
            async with open_tree(SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))])):
                raise AssertionError("never reached")
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    async def on_start(self) -> None:
        await self.gate.pass_start()

    async def on_stop(self, reason: Reason) -> None:
        self.gate.stops.append(reason)
        await self.gate.stop_gate.wait()
