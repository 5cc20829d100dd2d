"""Starts, watches and kills real daemons. Every wait is on a condition, with a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from actors.trainer.tensorfile import contents
from protocol import records
from protocol.home import Home
from protocol.quick import Failed, NoDaemon, ask
from tests.system.kernel import MARK, maps_torch, working_for

T = TypeVar("T")

CLI = [sys.executable, "-P", "-m", "protocol.cli.main"]
ROOT = Path(__file__).resolve().parents[2]

# Small steps and short settling: a file of a few dozen rows gives a few dozen optimizer steps.
SETTINGS: dict[str, dict[str, Any]] = {
    "inbox": {"settle": 0.05},
    "disk": {"refuse_below": 0, "warn_below": 0},
    "training": {
        "batch_tokens": 64,
        "micro_batch_tokens": 64,
        "max_length": 64,
        "learning_rate": 1e-3,
        "warmup_steps": 5,
        "threads": 1,
    },
    "http": {"port": -1},
}


def rows(count: int, start: int = 0) -> str:
    """Return JSONL of ``count`` different short text rows."""
    return "".join(
        json.dumps({"text": f"Row {n}: the stoker feeds boiler {n % 7} with {n * 37 % 101} shovels of coal."}) + "\n"
        for n in range(start, start + count)
    )


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = 60.0) -> T:
    """Return the first truthy answer of ``probe``; fail, naming ``what``, when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.02)


def toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    lines: list[str] = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


class Daemon:
    """One home and, most of the time, the daemon that tends it."""

    def __init__(
        self, root: Path, settings: Mapping[str, Mapping[str, Any]] | None = None, backend: str = "asyncio"
    ) -> None:
        self.home = Home(root)
        self.backend = backend
        self.config = root.parent / f"{root.name}.toml"
        self.process: subprocess.Popen[str] | None = None
        self.stderr = root.parent / f"{root.name}.stderr"
        self.settings = dict(settings or {})
        self.configure(self.settings)

    # ------------------------------------------------------------ the process

    def configure(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the configuration: the harness's own settings, overridden by these."""
        merged = {name: dict(values) for name, values in SETTINGS.items()}
        for name, values in settings.items():
            merged.setdefault(name, {}).update(values)
        self.config.write_text(toml(merged))

    def popen(self, *, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        command = [*CLI, "run", str(self.config), "--home", str(self.home.root), "--backend", self.backend]
        with self.stderr.open("a") as stderr:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=stderr,
                stderr=stderr,
                text=True,
                start_new_session=True,
                env={**os.environ, MARK: str(self.home.root), **(env or {})},
            )

    def start(self, *, env: Mapping[str, str] | None = None, seconds: float = 60.0) -> Daemon:
        """Start the daemon and wait until it answers ``status``."""
        self.process = self.popen(env=env)
        process = self.process

        def answers() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"the daemon ended with {process.returncode}:\n{self.stderr.read_text()[-4000:]}")
            return self.try_status() is not None

        wait_for("the daemon to answer", answers, seconds)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for the daemon's end; return its exit code (negative: the signal)."""
        assert self.process is not None
        return self.process.wait(seconds)

    def kill(self) -> list[psutil.Process]:
        """kill -9 the daemon; return the descendants that it had."""
        assert not maps_torch(self.pid), "the daemon's own process has torch in its memory"
        family = psutil.Process(self.pid).children(recursive=True)
        self.signal(signal.SIGKILL)
        self.wait()
        return family

    def stop(self, seconds: float = 60.0) -> int:
        assert not maps_torch(self.pid), "the daemon's own process has torch in its memory"
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait_nobody_left(self) -> None:
        """See that two seconds after the daemon's death no process is left that worked for this home."""
        wait_for("all training processes to be gone", lambda: not working_for(self.home.root), 2.0)

    # ------------------------------------------------------------ what it says

    def ask(self, to: str, body: dict[str, Any], timeout: float = 10.0) -> Any:
        return ask(str(self.home.socket), to, body, timeout)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("ControlSocket", {"type": "get_status"})
        return answer

    def try_status(self) -> dict[str, Any] | None:
        try:
            return self.status()
        except (NoDaemon, Failed):
            return None

    def cli(self, *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line against this home."""
        return subprocess.run(
            [*CLI, *arguments, "--home", str(self.home.root)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def wait_status(self, what: str, test: Callable[[dict[str, Any]], Any], seconds: float = 90.0) -> dict[str, Any]:
        def probe() -> dict[str, Any] | None:
            now = self.try_status()
            return now if now is not None and test(now) else None

        try:
            return wait_for(what, probe, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nstatus: {self.try_status()}\n{self.stderr.read_text()[-3000:]}") from None

    def wait_idle(self, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until everything that lies in the home is trained, committed and published."""
        return self.wait_status(
            "idle, nothing waiting, nothing owed",
            lambda s: s["state"] == "idle" and not s["queue"]["inbox"] and s["model"]["behind_steps"] == 0,
            seconds,
        )

    def wait_step(self, step: int, file: str | None = None, seconds: float = 90.0) -> dict[str, Any]:
        """Wait until the running job has done ``step`` optimizer steps."""
        return self.wait_status(
            f"step {step} of {file or 'a job'}",
            lambda s: s["job"] and s["job"]["step"] >= step and (file is None or s["job"]["file"] == file),
            seconds,
        )

    # ------------------------------------------------------------ what lies in the home

    def drop(self, name: str, content: str, folder: str = "") -> Path:
        """Put a file into the inbox as a careful producer does: written aside, renamed in."""
        target = self.home.inbox / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = self.home.root.parent / f".{name}.aside"
        aside.write_text(content)
        aside.rename(target)
        return target

    def head(self) -> records.Head:
        head = records.read_head(self.home)
        assert head is not None
        return head

    def ledger(self) -> records.Ledger:
        """Return the ledger of HEAD's checkpoint."""
        head = self.head()
        assert head.checkpoint is not None
        return records.read_record(self.home.checkpoints / head.checkpoint / records.LEDGER, records.Ledger)

    def optimizer_steps(self) -> set[int]:
        """Return how many steps the optimizer itself has counted, for each parameter, in HEAD's checkpoint."""
        name = self.head().checkpoint
        assert name is not None
        with (self.home.checkpoints / name / "optimizer.safetensors").open("rb") as file:
            found = set()
            for tensor, slot in contents(file).items():
                if tensor.startswith("step/"):
                    file.seek(slot.begin)
                    found.add(int(struct.unpack("<f", file.read(4))[0]))
            return found

    def manifest(self) -> records.VersionManifest:
        """Return the manifest of the published version."""
        return records.read_record(self.home.current / records.MANIFEST, records.VersionManifest)

    def checkpoints(self) -> list[str]:
        return sorted(p.name for p in self.home.checkpoints.iterdir() if records.CHECKPOINT_NAME.fullmatch(p.name))

    def files(self, folder: Path) -> list[str]:
        """Return the payloads in a folder of the queue, error files left out."""
        return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".error.json"))


@contextlib.contextmanager
def daemon(
    root: Path, settings: Mapping[str, Mapping[str, Any]] | None = None, backend: str = "asyncio"
) -> Iterator[Daemon]:
    """A daemon that is not yet started, and that is surely gone afterwards."""
    it = Daemon(root, settings, backend)
    try:
        yield it
    finally:
        if it.process is not None and it.process.poll() is None:
            family = psutil.Process(it.pid).children(recursive=True)
            it.process.kill()
            it.process.wait()
            psutil.wait_procs(family, timeout=5)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; a zombie does not."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
