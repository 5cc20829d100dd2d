"""What ends the daemon, and what has its configuration read again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actors.board import Board, Held
from actors.home_lock import leave, take
from actors.settings_store import ConfigStore
from actors.signal_handler import SignalHandler
from protocol.config import Config
from protocol.home import Home
from protocol.messages.common import Done
from protocol.messages.queue import GateView, QueueCounts, StopAfterFile, Stopping
from protocol.messages.system import ReloadConfig, Stop
from protocol.messages.trainer import ConfigChanged
from supervisor import Actor, ChildSpec, Disk, HandlerFailed, Ref, Refused, SupervisorSpec, Tree, on, open_tree
from supervisor.boot import Signals
from supervisor.testing import EventLog, VirtualClock, eventually, settle

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Ledger:
    """What the queue's stand-in was told."""

    stops: int = 0
    endings: list[str | None] = field(default_factory=list)
    """What the board said of the stop each time that one was announced."""
    configs: list[ConfigChanged] = field(default_factory=list)
    refuse: bool = False


class Clerk(Actor):
    def __init__(self, ledger: Ledger, board: Board) -> None:
        self.ledger = ledger
        self.board = board

    @on(StopAfterFile)
    async def _(self, message: StopAfterFile) -> Done:
        if self.ledger.refuse:
            raise Refused("recovery is not over")
        self.ledger.stops += 1
        self.board.gate = GateView(stop_after_file=True)
        return Done()

    @on(Stopping)
    async def _(self, message: Stopping) -> Done:
        self.ledger.endings.append(self.board.stopping)
        return Done()

    @on(ConfigChanged)
    async def _(self, message: ConfigChanged) -> None:
        self.ledger.configs.append(message)


@dataclass
class Room:
    tree: Tree
    clock: VirtualClock
    home: Home
    store: ConfigStore
    board: Board
    signals: Signals
    ledger: Ledger
    events: EventLog

    @property
    def handler(self) -> Ref:
        return self.tree.ref("SignalHandler")

    async def ended(self) -> tuple[str, int]:
        report = await self.tree.wait()
        return getattr(report.reason, "detail", str(report.reason)), report.exit_code

    def is_stopping(self) -> bool:
        return self.board.stopping is not None


@asynccontextmanager
async def room(tmp_path: Path, *, before_start: bool = False, embedded: bool = False) -> AsyncIterator[Room]:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    if before_start:
        home.stop_file.touch()
        probe = home.root / "tick"
        probe.touch()
        while probe.stat().st_ctime_ns <= home.stop_file.stat().st_ctime_ns:  # the file system's clock is a coarse one
            probe.touch()
    take(home, home, Disk())
    settings = tmp_path / "settings.toml"
    settings.write_text("")
    store, board, ledger, clock = ConfigStore(Config(), settings), Board(), Ledger(), VirtualClock()
    signals = Signals()
    handler = ChildSpec("SignalHandler", lambda: SignalHandler(home, store, board, None if embedded else signals))
    spec = SupervisorSpec("root", [ChildSpec("QueueManager", lambda: Clerk(ledger, board)), handler])
    try:
        async with open_tree(spec, clock=clock) as tree:
            yield Room(tree, clock, home, store, board, signals, ledger, EventLog(tree.stream, ["state"]))
    finally:
        leave(home, home)


@pytest.mark.anyio
async def test_a_gentle_stop_resumes_who_was_suspended(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.tree.introspection.suspend("QueueManager")
        the.signals.put(signal.SIGTERM)
        await the.ended()
        assert the.ledger.endings == ["SIGTERM"]


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_signal_stops_the_tree_gently(tmp_path: Path, number: signal.Signals) -> None:
    async with room(tmp_path) as the:
        the.signals.put(number)
        assert await the.ended() == (number.name, 0)
        assert the.board.stopping == number.name


@pytest.mark.anyio
async def test_a_signal_that_came_before_the_handler_is_not_lost_in_its_restart(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.tree.inject_fault("SignalHandler", RuntimeError("a fault of the test"))
        the.signals.put(signal.SIGTERM)
        assert (await the.ended())[0] == "SIGTERM"


@pytest.mark.anyio
async def test_a_stop_file_that_appears_is_obeyed_and_removed(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.home.stop_file.touch()
        await the.clock.advance(1)
        assert await the.ended() == ("the file .stop", 0)
        assert not the.home.stop_file.exists()


@pytest.mark.anyio
async def test_a_stop_file_from_before_the_start_is_removed_and_reported_and_not_obeyed(tmp_path: Path) -> None:
    async with room(tmp_path, before_start=True) as the:
        assert not the.home.stop_file.exists()
        await the.clock.advance(5)
        assert not the.is_stopping()
        assert "a stop request from before this daemon started was removed" in str(the.board.troubles["SignalHandler"])


@pytest.mark.anyio
async def test_a_stop_file_that_came_while_the_daemon_started_is_obeyed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    take(home, home, Disk())
    home.stop_file.touch()
    board = Board()
    spec = SupervisorSpec(
        "root", [ChildSpec("SignalHandler", lambda: SignalHandler(home, ConfigStore(Config()), board, None))]
    )
    async with open_tree(spec) as tree:
        await tree.wait()
    leave(home, home)
    assert board.stopping == "the file .stop"
    assert not home.stop_file.exists()


@pytest.mark.anyio
async def test_a_stop_file_that_came_while_the_handler_was_down_is_obeyed(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.home.stop_file.touch()
        the.tree.inject_fault("SignalHandler", RuntimeError("a fault of the test"))
        assert (await the.ended())[0] == "the file .stop"


@pytest.mark.anyio
async def test_a_stop_folder_is_obeyed_once_and_said_to_be_in_the_way(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.home.stop_file.mkdir()
        await the.clock.advance(1)
        assert (await the.ended())[0] == "the file .stop"
        assert len(the.events.read(event="stopping")) == 1


@pytest.mark.anyio
async def test_stop_on_request_is_answered_first(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        assert await the.handler.call(Stop("gently")) == Done()
        assert await the.ended() == ("stokehold stop", 0)


@pytest.mark.anyio
async def test_stop_after_the_file_waits_until_no_job_is_held_and_all_is_durable(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.board.held = Held("a", 1)
        the.board.queue = QueueCounts(processing=1)
        await the.handler.call(Stop("after_file"))
        assert the.ledger.stops == 1
        await the.clock.advance(10)
        assert not the.is_stopping()
        the.board.held = None  # trained, and awaiting its checkpoint
        await the.clock.advance(10)
        assert not the.is_stopping()
        the.board.queue = QueueCounts()
        await the.clock.advance(1)
        assert (await the.ended())[0] == "stokehold stop --after-file"


@pytest.mark.anyio
async def test_stop_after_the_file_does_not_wait_for_one_that_a_pause_interrupted(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.board.queue = QueueCounts(processing=1)
        await the.handler.call(Stop("after_file"))
        await the.clock.advance(10)
        assert not the.is_stopping()
        the.board.gate = GateView(paused=True, stop_after_file=True)
        await the.clock.advance(1)
        assert (await the.ended())[0] == "stokehold stop --after-file"


@pytest.mark.anyio
async def test_stop_after_the_file_can_be_taken_back(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.board.held = Held("a", 1)
        await the.handler.call(Stop("after_file"))
        the.board.gate, the.board.held = GateView(), None
        await the.clock.advance(10)
        assert not the.is_stopping()


@pytest.mark.anyio
async def test_a_restarted_handler_remembers_a_stop_after_the_file(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.board.held = Held("a", 1)
        await the.handler.call(Stop("after_file"))
        the.tree.inject_fault("SignalHandler", RuntimeError("a fault of the test"))
        await settle()
        the.board.held = None
        await the.clock.advance(1)
        assert (await the.ended())[0] == "stokehold stop --after-file"


@pytest.mark.anyio
async def test_stop_after_the_file_is_refused_when_the_queue_does_not_take_it(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.ledger.refuse = True
        with pytest.raises(HandlerFailed, match="recovery is not over"):
            await the.handler.call(Stop("after_file"))
        await the.clock.advance(5)
        assert not the.is_stopping()


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["signal", "file", "gently", "now"])
async def test_the_queue_is_told_of_every_stop_before_the_end(tmp_path: Path, way: str) -> None:
    async with room(tmp_path, embedded=way == "now") as the:
        if way == "signal":
            the.signals.put(signal.SIGTERM)
        elif way == "file":
            the.home.stop_file.touch()
        else:
            await the.handler.call(Stop(way))  # type: ignore[arg-type]
        await the.clock.advance(1)
        await the.ended()
        assert the.ledger.endings == [the.board.stopping]
        assert the.board.stopping is not None


@pytest.mark.anyio
async def test_an_embedded_tree_is_stopped_and_its_host_lives_on(tmp_path: Path) -> None:
    async with room(tmp_path, embedded=True) as the:
        await the.handler.call(Stop("now"))
        await the.clock.advance(1)
        assert (await the.ended())[1] == 143


@pytest.mark.anyio
async def test_a_reload_is_told_to_all_whom_it_concerns(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        assert the.store.path is not None
        the.store.path.write_text('[disk]\nrefuse_below = "1GiB"\n')
        result = await the.handler.call(ReloadConfig())
        assert (result.applied, result.changed, result.revision) == (True, ["disk.refuse_below"], 2)
        await settle()
        (told,) = the.ledger.configs
        assert (told.config.disk.refuse_below, told.revision) == (1 << 30, 2)


@pytest.mark.anyio
async def test_a_reload_that_needs_a_restart_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        assert the.store.path is not None
        the.store.path.write_text('[disk]\nrefuse_below = "1GiB"\n[http]\nport = 0\n')
        the.signals.put(signal.SIGHUP)
        await eventually(lambda: "SignalHandler" in the.board.troubles)
        warning = str(the.board.troubles["SignalHandler"])
        assert "these keys take effect only at a restart" in warning
        assert "http.port (restart)" in warning
        (event,) = the.events.read(event="config_refused")
        assert event["standing_in_the_way"] == ["http.port (restart)"]
        assert the.ledger.configs == []
        the.store.path.write_text("")
        the.signals.put(signal.SIGHUP)
        await eventually(lambda: not the.board.troubles)


# ---------------------------------------------------------------- real processes, real signals


@contextmanager
def daemon(home: Path, backend: str) -> Iterator[subprocess.Popen[str]]:
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-m", "supervisor", "--app", "tests.actors.signal_app:tree", "--backend", backend]
    with subprocess.Popen(
        [*command, str(home)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == "up\n"
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_process_ends_with_0_for_sigterm_and_for_a_stop_file(tmp_path: Path, backend: str) -> None:
    with daemon(tmp_path / "a", backend) as running:
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
    with daemon(tmp_path / "b", backend) as running:
        (tmp_path / "b" / ".stop").touch()
        assert running.wait(10) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_stop_now_ends_a_process_with_143(tmp_path: Path, backend: str) -> None:
    with daemon(tmp_path / "a", backend) as running:
        (tmp_path / "a" / "command.tmp").write_text("now")
        (tmp_path / "a" / "command.tmp").rename(tmp_path / "a" / "command")
        assert running.wait(10) == 143


def test_a_hangup_ends_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path / "a", "asyncio") as running:
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
