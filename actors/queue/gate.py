"""The gate: what keeps jobs from being handed out.

Durable: a person's pause, "stop after this file", and the maintenance lease; one row, one commit each. Derived anew
by every daemon: the disk's and the device's word, a stop, and the wish for a lease between two files. A pause outlives
everything but ``resume``. The other two belong to one run of the daemon: those of a dead run are cleared at its
successor's start, so that nothing stale haunts it.
"""

from __future__ import annotations

import secrets

import msgspec

from actors.queue.store import Store
from protocol.messages.queue import GateView, NoWork


class Gate:
    """Holds the gate and makes its changes durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        paused, release, stop_after, holder, token = store.gate()
        self.view = GateView(paused=paused, release_device=release, stop_after_file=stop_after, lease=holder)
        self._token = token
        self.stopping = False
        """The daemon is on its way out: nothing is handed out any more in this run."""

    def begin_run(self) -> list[str]:
        """Clear what a dead run left behind; return what that was, in words."""
        stale = []
        if self.view.stop_after_file:
            stale.append("a request to stop after the running file, of a daemon that is gone, was cleared")
        if self.view.lease:
            stale.append(f"the maintenance lease of {self.view.lease}, of a daemon that is gone, was cleared")
        if stale:
            self._set(msgspec.structs.replace(self.view, stop_after_file=False, lease=None), None)
        return stale

    # ------------------------------------------------------------ durable

    def pause(self, *, release: bool) -> None:
        """Shut the gate until somebody says ``resume``; with ``release`` the device is to be let go of too."""
        self._set(msgspec.structs.replace(self.view, paused=True, release_device=release), self._token)

    def resume(self) -> None:
        """Take back a pause and a request to stop after the file."""
        opened = msgspec.structs.replace(self.view, paused=False, release_device=False, stop_after_file=False)
        self._set(opened, self._token)

    def stop_after_file(self) -> None:
        """Have no further job begun in this run."""
        self._set(msgspec.structs.replace(self.view, stop_after_file=True), self._token)

    def write_again(self) -> None:
        """Commit what stands already, to find out whether a commit succeeds."""
        self._set(self.view, self._token)

    def lend(self, holder: str) -> str:
        """Give the maintenance lease to this holder, who need not wish for it any more; return its token."""
        token = secrets.token_hex(8)
        self._set(msgspec.structs.replace(self.view, lease=holder, lease_wanted=None), token)
        return token

    def lent_to(self, holder: str) -> str | None:
        """Return the token of this holder's lease, or None if it has none."""
        return self._token if self.view.lease == holder else None

    def take_back(self, token: str) -> bool:
        """End the lease; False if it is not the one that is out."""
        if self._token is None or token != self._token:
            return False
        self._set(msgspec.structs.replace(self.view, lease=None), None)
        return True

    # ------------------------------------------------------------ derived

    def stop(self) -> None:
        """Shut the gate for the rest of this run."""
        self.stopping = True

    def wish(self, holder: str | None) -> None:
        """Note who wants the lease between two files; None: nobody does."""
        self.view = msgspec.structs.replace(self.view, lease_wanted=holder)

    def disk(self, reason: str | None) -> None:
        """Note DiskMonitor's word."""
        self.view = msgspec.structs.replace(self.view, disk=reason)

    def device(self, reason: str | None) -> None:
        """Note who keeps the device from being used."""
        self.view = msgspec.structs.replace(self.view, device=reason)

    def storage(self, reason: str | None) -> None:
        """Note why the queue itself cannot write."""
        self.view = msgspec.structs.replace(self.view, storage=reason)

    # ------------------------------------------------------------ what follows from it

    def closed(self) -> NoWork | None:
        """Return why no job may be handed out, or None if one may."""
        view = self.view
        if self.stopping:
            return NoWork(reason="stopping")
        if view.paused:
            return NoWork(reason="paused", release_device=view.release_device)
        if view.lease:
            return NoWork(reason="lease")
        if view.disk or view.storage:
            return NoWork(reason="disk")
        return NoWork(reason="device") if view.device else None

    def nothing_new(self) -> NoWork | None:
        """Return why no job may be begun, or None if one may. What was begun goes on as long as the gate is open."""
        if self.view.stop_after_file:
            return NoWork(reason="stop_after_file")
        return NoWork(reason="lease") if self.view.lease_wanted else None

    def _set(self, view: GateView, token: str | None) -> None:
        with self._store.transaction():
            self._store.set_gate((view.paused, view.release_device, view.stop_after_file, view.lease, token))
        self.view = view
        self._token = token
