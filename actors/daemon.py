"""The tree of the daemon, at one glance, and the two ways into it: the binary's and the embedder's."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from actors.board import Board
from actors.consolidator.consolidator import Consolidator
from actors.control_socket import ControlSocket
from actors.disk_monitor import DiskMonitor
from actors.inbox.watcher import InboxWatcher
from actors.lock_keeper import LockKeeper
from actors.metrics_exporter import MetricsExporter
from actors.queue.manager import QueueManager
from actors.settings_store import ConfigStore
from actors.signal_handler import SignalHandler
from protocol.config import ChildSection, Config
from protocol.home import Home
from protocol.settings import COMMAND_LINE, ConfigError, Loaded, Problem, load
from supervisor import (
    Actor,
    BootRefused,
    ChildSpec,
    Clock,
    CoolDown,
    ProcessStart,
    SupervisorSpec,
    Tree,
    open_tree,
)
from supervisor.boot import Boot, Signals
from supervisor.durable import Disk

EX_CONFIG = 78
TRAINER = "actors.trainer.actor:TrainerActor"
PRELOAD = ("actors.trainer.actor", "actors.trainer.session", "transformers.models.llama.modeling_llama")
"""Imported once by the process host, so that a crashed trainer is back in a second."""


@dataclass(slots=True)
class Parts:
    """What the actors share, and what an embedder may replace."""

    home: Home
    store: ConfigStore
    board: Board = field(default_factory=Board)
    disk: Disk = field(default_factory=Disk)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    signals: Signals | None = None
    trainer: str = TRAINER
    preload: tuple[str, ...] = PRELOAD


def daemon_tree(parts: Parts) -> SupervisorSpec:
    """Return the specification of the whole daemon."""
    home, store, board, disk = parts.home, parts.store, parts.board, parts.disk
    return _supervisor(
        store,
        "root",
        [
            _task(store, "LockKeeper", lambda: LockKeeper(home, store)),
            _supervisor(
                store,
                "core",
                [
                    _task(store, "DiskMonitor", lambda: DiskMonitor(home, store, disk, board)),
                    _task(store, "QueueManager", lambda: QueueManager(home, store, disk, board), start_timeout=3600.0),
                    _task(store, "ControlSocket", lambda: ControlSocket(home, store, board)),
                ],
                cool_down=5.0,
            ),
            _supervisor(store, "training", [_trainer(parts)], intensity=5, period=60.0, cool_down=30.0),
            _supervisor(
                store,
                "edge",
                [
                    _task(store, "InboxWatcher", lambda: InboxWatcher(home, store, disk, board)),
                    _task(store, "Consolidator", lambda: Consolidator(home, store, disk, board)),
                    _task(
                        store, "MetricsExporter", lambda: MetricsExporter(store, board, parts.registry), cool_down=30.0
                    ),
                    _task(store, "SignalHandler", lambda: SignalHandler(home, store, board, parts.signals)),
                ],
                cool_down=5.0,
            ),
        ],
        strategy="rest_for_one",
    )


def _supervisor(
    store: ConfigStore,
    name: str,
    children: list[ChildSpec | SupervisorSpec],
    *,
    strategy: Any = "one_for_one",
    intensity: int = 3,
    period: float = 5.0,
    cool_down: float | None = None,
) -> SupervisorSpec:
    own = _own(store, name)
    rest = own.cool_down if own.cool_down is not None else cool_down
    policy: dict[str, Any] = {} if rest is None else {"on_give_up": CoolDown(rest)}
    return SupervisorSpec(
        name,
        children,
        strategy=strategy,
        intensity=intensity if own.intensity is None else own.intensity,
        period=period if own.period is None else own.period,
        **policy,
    )


def _task(
    store: ConfigStore,
    name: str,
    start: Callable[[], Actor],
    *,
    start_timeout: float = 60.0,
    cool_down: float | None = None,
) -> ChildSpec:
    own = _own(store, name)
    return ChildSpec(
        name,
        start,
        shutdown=10.0 if own.shutdown is None else own.shutdown,
        liveness=own.liveness,
        start_timeout=start_timeout,
        on_give_up=_rest(own, cool_down),
    )


def _trainer(parts: Parts) -> ChildSpec:
    own = _own(parts.store, "TrainerActor")
    config = parts.store.current
    lora = parts.trainer == TRAINER and config.training.method == "lora"
    return ChildSpec(
        "TrainerActor",
        ProcessStart(
            parts.trainer,
            arguments=lambda: {
                "home": str(parts.home.root),
                "config": msgspec.to_builtins(parts.store.current),
                "revision": parts.store.revision,
            },
            preload=(*parts.preload, "peft") if lora else parts.preload,
        ),
        isolation="process",
        shutdown=config.daemon.stop_within if own.shutdown is None else own.shutdown,
        liveness=600.0 if own.liveness is None else own.liveness,
        start_timeout=600.0,
        on_give_up=_rest(own),
    )


def _rest(own: ChildSection, usual: float | None = None) -> CoolDown | None:
    """What happens when this actor makes its supervisor give up; None: what the supervisor does for all."""
    seconds = usual if own.cool_down is None else own.cool_down
    return None if seconds is None else CoolDown(seconds)


def _own(store: ConfigStore, name: str) -> ChildSection:
    return store.current.supervision.get(name, ChildSection())


# ---------------------------------------------------------------- the binary's way in


def tree(boot: Boot) -> SupervisorSpec:
    """Application function of ``python -m supervisor``: read the settings, return the tree.

    Arguments: ``[--config FILE] [--home DIR]``. Without a file the home's own ``stokehold.toml`` is read, if there.

    Raises:
        BootRefused: the configuration is not right (exit code 78).
    """
    parser = argparse.ArgumentParser(prog="stokehold run", add_help=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--home", type=Path)
    given = parser.parse_args(boot.arguments)
    try:
        loaded, overrides = read_settings(given.config, given.home, boot.backend)
    except ConfigError as error:
        raise BootRefused(str(error), EX_CONFIG) from error
    boot.set_root_deadline(loaded.config.daemon.stop_within + 30.0)
    store = ConfigStore(loaded.config, loaded.path, overrides, loaded.origins)
    return daemon_tree(Parts(Home(loaded.home), store, signals=boot.signals))


def read_settings(config: Path | None, home: Path | None, backend: str) -> tuple[Loaded, dict[str, object]]:
    """Return the settings that a command line means, and those of them that it gave itself and that outlive a reload.

    Raises:
        ConfigError: no home is named, or the settings are not right.
    """
    own = Home(home).settings if home is not None else None
    path = config or (own if own is not None and own.exists() else None)
    if home is None and path is None:
        what = "no home: give a configuration file, or --home DIR (stokehold init DIR makes one)"
        raise ConfigError([Problem(COMMAND_LINE, "", what)])
    overrides: dict[str, object] = {} if home is None else {"daemon.home": _sayable(home.absolute())}
    loaded = load(path, overrides)
    _sayable(loaded.home)
    if loaded.config.daemon.backend != backend:
        overrides["daemon.backend"] = backend
        loaded = load(path, overrides)
    return loaded, overrides


def _sayable(home: Path) -> str:
    """Return the path of a home as text that can be told to anybody."""
    try:
        str(home).encode()
    except UnicodeEncodeError as error:
        what = f"the path of a home must be UTF-8, and this one is not: {str(home)!a}"
        raise ConfigError([Problem(COMMAND_LINE, "daemon.home", what)]) from error
    return str(home)


# ---------------------------------------------------------------- the embedder's way in


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon inside your program. ``tree.inject_fault(name, error)`` is its fault port."""

    tree: Tree
    home: Home
    store: ConfigStore
    board: Board


@asynccontextmanager
async def open_daemon(
    home: Path,
    config: Config | None = None,
    *,
    clock: Clock | None = None,
    disk: Disk | None = None,
    registry: CollectorRegistry | None = None,
    trainer: str = TRAINER,
    preload: tuple[str, ...] = PRELOAD,
) -> AsyncIterator[Daemon]:
    """Run the whole daemon inside an asyncio or trio program; stop it gently at the end of the block.

    No signal handler is installed, and your process is never ended. ``clock`` injects the time; ``registry`` takes the
    metrics; ``trainer`` names another actor class that keeps TrainerActor's contract.

    Raises:
        BootRefused: another daemon tends this home, or the home cannot be written.
        StopIncomplete: something would not stop in its time; it names what.
    """
    parts = Parts(
        Home(home.absolute()),  # noqa: ASYNC240, no file system is asked
        ConfigStore(config or Config()),
        disk=disk or Disk(),
        registry=registry or CollectorRegistry(),
        trainer=trainer,
        preload=preload,
    )
    async with open_tree(daemon_tree(parts), clock=clock) as running:
        yield Daemon(running, parts.home, parts.store, parts.board)
