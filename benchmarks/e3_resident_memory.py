"""E3: the resident memory of the idle daemon against that of a process with the same imports, which does nothing.

Which modules those are is asked of a daemon that runs embedded; the training process and its host are not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.result import interleaved, report
from tests.system.harness import Daemon, daemon, rows

TARGET = 1.25
REPEATS = 5

MODULES_OF_A_DAEMON = """\
import anyio, json, pathlib, sys
import supervisor.binary
from actors.daemon import open_daemon
from protocol.config import Config, HttpSection
from protocol.messages.system import GetStatus

async def main(home):
    async with open_daemon(home, Config(http=HttpSection(port=0))) as daemon:
        await daemon.tree.ref("ControlSocket").call(GetStatus(), timeout=60)
        return sorted(set(sys.modules) - {"__main__", "__mp_main__"})

print(json.dumps(anyio.run(main, pathlib.Path(sys.argv[1]))))
"""

THE_SAME_IMPORTS = """\
import importlib, json, sys
for name in json.loads(sys.stdin.readline()):
    importlib.import_module(name)
print("done", flush=True)
sys.stdin.readline()
"""


def modules_of_a_daemon(home: Path) -> list[str]:
    command = [sys.executable, "-P", "-c", MODULES_OF_A_DAEMON, str(home)]
    names: list[str] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return names


def of_imports(names: list[str]) -> float:
    """Return the resident bytes of a process that has imported these modules."""
    command = [sys.executable, "-P", "-c", THE_SAME_IMPORTS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(names) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        return float(psutil.Process(process.pid).memory_info().rss)


def of_daemon(it: Daemon) -> float:
    """Start the daemon on a home that has trained; return its resident bytes once it is idle; stop it."""
    it.start()
    it.wait_status("idle, its trainer loaded", lambda s: s["state"] == "idle" and s["model"]["version"])
    resident = float(psutil.Process(it.pid).memory_info().rss)
    it.stop()
    return resident


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder) / "home", {"http": {"port": 0}}) as it:
        it.start()
        it.drop("file.jsonl", rows(20))
        it.wait_idle()
        it.stop()
        names = modules_of_a_daemon(Path(folder) / "embedded")
        medians = interleaved({"daemon": lambda: of_daemon(it), "imports": lambda: of_imports(names)}, REPEATS)
    report(
        "E3",
        medians["daemon"] / medians["imports"],
        "at most",
        TARGET,
        mebibytes={name: round(value / 2**20, 1) for name, value in medians.items()},
        modules=len(names),
        repeats=REPEATS,
    )


if __name__ == "__main__":
    main()
