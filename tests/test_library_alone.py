"""The library without the rest: a virtual environment with ``supervisor/``, ``protocol/``, what these depend on, and
nothing else.

The daemon's package is not there, and neither are torch and transformers; whoever asks for them is refused.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest

from tests.system.harness import wait_for

ROOT = Path(__file__).resolve().parent.parent

NEEDED = ("anyio", "idna", "msgspec", "typing_extensions")
TRIO = ("trio", "attr", "attrs", "sortedcontainers", "outcome", "sniffio")
SERVING = ("prometheus_client", "starlette", "hypercorn", "h11", "h2", "hpack", "hyperframe", "priority", "wsproto")
SERVES = {"supervisor.metrics", "supervisor.exporter"}
"""What alone needs those."""

REFUSED = ("torch", "transformers", "numpy", "peft", "tokenizers", "safetensors", "inotify_simple", "rich", "actors")

SITECUSTOMIZE = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {REFUSED!r}:
            raise ImportError(f"{{name}} is not for the library")

sys.meta_path.insert(0, Refuse())
"""

OWN = '''
import sys
from pathlib import Path

from supervisor import Actor, ChildSpec, ProcessStart, Request, SupervisorSpec, on
from supervisor.control import ControlSocket


class Modules(Request[list[str]], frozen=True):
    """What its process has imported."""


class Teller(Actor):
    @on(Modules)
    async def _(self, message: Modules) -> list[str]:
        return sorted({name.partition(".")[0] for name in sys.modules})


PUBLIC = {"task": (Modules,), "process": (Modules,)}


def tree(boot):
    path = Path(boot.arguments[0])
    return SupervisorSpec("root", [
        ChildSpec("task", Teller),
        ChildSpec("process", ProcessStart("own:Teller", preload=("own",)), isolation="process"),
        ChildSpec("ControlSocket", lambda: ControlSocket(path, PUBLIC)),
    ])
'''

IMPORT_ALL = """
import importlib, json, pkgutil, protocol, supervisor
failed = {}
found = [one.name for it in (protocol, supervisor) for one in pkgutil.walk_packages(it.__path__, it.__name__ + ".")]
names = [name for name in found if not name.endswith("__main__")]
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps([len(names), failed]))
"""


class Alone:
    """An environment with these packages and ours, and its interpreter."""

    def __init__(self, folder: Path, packages: tuple[str, ...]) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
        self.python = folder / "bin" / "python"
        (site,) = folder.glob("lib/python3*/site-packages")
        theirs = Path(sysconfig.get_path("platlib"))
        for name in packages:
            there = theirs / name if (theirs / name).exists() else theirs / f"{name}.py"
            (site / there.name).symlink_to(there)
        for ours in ("protocol", "supervisor"):
            copytree(ROOT / ours, site / ours, ignore=ignore_patterns("__pycache__"))
        (site / "own.py").write_text(OWN)
        (site / "sitecustomize.py").write_text(SITECUSTOMIZE)

    def words(self, *words: str | Path) -> list[str | Path]:
        return [self.python, "-P", *words]

    def run(self, *words: str | Path) -> str:
        done = subprocess.run(
            self.words(*words), env=_environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"NO_COLOR": "1"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("bare"), NEEDED)


@pytest.fixture(scope="module")
def with_trio(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("trio"), NEEDED + TRIO)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("serving"), NEEDED + TRIO + SERVING)


def imported(alone: Alone) -> dict[str, str]:
    """What cannot be imported, and why."""
    number, failed = json.loads(alone.run("-c", IMPORT_ALL))
    assert number > 100, "else this proves nothing"
    return dict(failed)


def test_every_module_can_be_imported(serving: Alone) -> None:
    assert imported(serving) == {}


def test_metrics_alone_need_more_and_trio_is_needed_only_to_run_on_it(bare: Alone, with_trio: Alone) -> None:
    assert set(imported(with_trio)) == SERVES
    assert set(imported(bare)) == SERVES | {"protocol.backend_trio"}


def test_what_is_refused_is_refused(bare: Alone) -> None:
    for name in REFUSED:
        with pytest.raises(AssertionError, match="is not for the library"):
            bare.run("-c", f"import {name}")


@pytest.fixture(params=["asyncio", "trio"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Alone, Path, subprocess.Popen[str]]]:
    """A tree with a task, a process and a control socket, run as a program; on asyncio trio is not even there."""
    alone: Alone = request.getfixturevalue("bare" if request.param == "asyncio" else "with_trio")
    (tmp_path / "run").mkdir(mode=0o700)
    path = tmp_path / "run" / "control.sock"
    words = alone.words("-m", "supervisor", "--app", "own:tree", "--backend", request.param, path)
    process = subprocess.Popen(words, env=_environment(), stderr=subprocess.PIPE, text=True)

    def answers() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return path.exists()

    try:
        wait_for("the control socket", answers)
        yield alone, path, process
    finally:
        process.kill()
        process.communicate()


def test_a_tree_runs_and_the_command_line_works_on_it(tree: tuple[Alone, Path, subprocess.Popen[str]]) -> None:
    alone, path, process = tree

    def cli(*words: str) -> Any:
        said = alone.run("-m", "protocol.cli.main", *words, "--socket", path, "--json")
        return json.loads(said) if said else None

    assert [child["id"] for child in cli("tree")["children"]] == ["task", "process", "ControlSocket"]
    assert "process" in alone.run("-m", "protocol.cli.main", "tree", "--socket", path)
    for name in ("task", "process"):
        modules = set(cli("send", name, '{"type": "modules"}'))
        assert not modules & {*REFUSED, *SERVING}
        assert {"supervisor", "protocol", "msgspec"} <= modules
        cli("actor", "suspend", name)
        assert cli("actor", "state", name)["status"] == "suspended"
        cli("actor", "resume", name)
        assert cli("actor", "restart", name)["incarnation"] == 2
    told = alone.run("-m", "protocol.cli.main", "events", "--socket", path, "--json").splitlines()
    assert {json.loads(line)["topic"] for line in told} == {"lifecycle"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, process.communicate()[1]
