"""LockKeeper: one daemon per home. The first child of the tree; without it nothing else starts.

Who holds the home also keeps its log, which must not be begun by a daemon that is about to be refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from actors import logbook
from actors.home_lock import HeldElsewhere, Holder, leave, take
from actors.settings_store import ConfigStore
from protocol.home import Home
from supervisor import Actor, BootRefused, Reason
from supervisor.durable import Disk


class LockKeeper(Actor):
    """Takes the home's lock and then makes the home's folders.

    The lock belongs to the process: a restart of this actor finds it held and goes on, and only the process's exit
    releases it. A stop merely lets a later tree of the same process have it.
    """

    def __init__(self, home: Home, store: ConfigStore) -> None:
        self._home = home
        self._store = store

    async def on_start(self) -> None:
        """Take the lock.

        Raises:
            BootRefused: another daemon has it, or the home cannot be written. Nothing was created in the first case.
        """
        disk = Disk()
        try:
            take(self._home, self._home, disk)
        except HeldElsewhere as error:
            raise BootRefused(_held(error.holder), 1) from error
        except OSError as error:
            raise BootRefused(self._unwritable(error), 1) from error
        try:
            for folder in self._home.folders:
                disk.mkdir(folder, exist_ok=True)
            self._home.run.chmod(0o700)  # whoever made it: who can reach the socket commands the daemon
        except OSError as error:
            leave(self._home, self._home)
            raise BootRefused(self._unwritable(error), 1) from error
        self.context.spawn(
            logbook.keep_logbook, self._home, self._store, self.context.subscribe(logbook.TOPICS, logbook.BOUND)
        )

    async def on_stop(self, reason: Reason) -> None:
        leave(self._home, self._home)

    def summary(self) -> Mapping[str, object]:
        return {"lock": str(self._home.lock)}

    def _unwritable(self, error: OSError) -> str:
        where = error.filename or self._home.root
        return (
            f"The home {self._home.root} cannot be used: {error.strerror} ({where}). "
            "Make it writable for this user, or name another one with --home"
        )


def _held(holder: Holder) -> str:
    if holder.pid is None:
        return "Another daemon is running (PID unknown: it is not visible from here, in another container perhaps)"
    if holder.orphan_of is None:
        return f"Another daemon is running (PID {holder.pid})"
    return (
        f"The home is locked by PID {holder.pid}, which a daemon that is no more (PID {holder.orphan_of}) left behind. "
        f"End it with: kill -9 {holder.pid}"
    )
