"""A small application of the binary: lock, queue stand-in and SignalHandler over the home in its arguments."""

from __future__ import annotations

from pathlib import Path

from actors.board import Board
from actors.lock_keeper import LockKeeper
from actors.settings_store import ConfigStore
from actors.signal_handler import SignalHandler
from protocol.home import Home
from protocol.settings import load
from supervisor import Actor, ChildSpec, SupervisorSpec
from supervisor.boot import Boot


class Announcer(Actor):
    """The last child: when it is up, so is everybody."""

    async def on_start(self) -> None:
        print("up", flush=True)


class Commander(Actor):
    """Sends the handler what its ``command`` file says."""

    def __init__(self, home: Home) -> None:
        self.home = home

    async def on_start(self) -> None:
        self.context.spawn(self.watch)

    async def watch(self) -> None:
        from protocol.messages.system import Stop

        while not (self.home.root / "command").exists():
            await self.context.clock.sleep(0.02)
        mode = (self.home.root / "command").read_text()
        await self.context.ref("SignalHandler").call(Stop(mode))  # type: ignore[arg-type]


def tree(boot: Boot) -> SupervisorSpec:
    home = Home(Path(boot.arguments[0]))
    settings = home.root / "stokehold.toml"
    loaded = load(settings if settings.exists() else None, {})
    store, board = ConfigStore(loaded.config, loaded.path), Board()
    return SupervisorSpec(
        "root",
        [
            ChildSpec("LockKeeper", lambda: LockKeeper(home, store)),
            ChildSpec("SignalHandler", lambda: SignalHandler(home, store, board, boot.signals)),
            ChildSpec("Commander", lambda: Commander(home)),
            ChildSpec("Announcer", Announcer),
        ],
    )
