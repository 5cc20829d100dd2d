"""What mypy and pyright, both strict, prove: a call has the type of its reply, and a handler that answers with another
is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PREAMBLE = """
from __future__ import annotations
from collections.abc import Sequence
from protocol.messages.common import Message, Request
from supervisor import Actor, Down, Ref, Reply, on, on_batch, on_deferred, on_down

class Get(Request[list[int]], frozen=True): ...
class Tick(Message, frozen=True): ...

async def use(ref: Ref) -> None:
"""

RIGHT = """
    numbers: list[int] = await ref.call(Get())
    same: list[int] = await ref.request(Get(), timeout=1)
    ref.cast(Tick())
    ref.cast(Get())
    print(await ref.call(Get()))
    anything: object = await ref.call(Get())

class Right(Actor):
    @on(Get)
    async def _(self, message: Get) -> list[int]:
        return [1]
    @on(Tick)
    async def _(self, message: Tick) -> None: ...
    @on_down
    async def _(self, down: Down) -> None: ...

class Deferred(Actor):
    @on_deferred(Get)
    async def _(self, message: Get, reply: Reply[list[int]]) -> None:
        reply.send([1])

class Batched(Actor):
    @on_batch(Get, limit=10)
    async def _(self, batch: Sequence[tuple[Get, Reply[list[int]]]]) -> None: ...
"""

WRONG = """
    text: str = await ref.call(Get())  # wrong
    await ref.call(Tick())  # wrong
    ref.cast("tick")  # wrong

class W1(Actor):
    @on(Get)  # wrong
    async def _(self, message: Get) -> list[str]:
        return []

class W2(Actor):
    @on(Tick)  # wrong
    async def _(self, message: Get) -> None: ...

class W3(Actor):
    @on_deferred(Get)  # wrong
    async def _(self, message: Get, reply: Reply[str]) -> None: ...

class W4(Actor):
    @on_deferred(Get)
    async def _(self, message: Get, reply: Reply[list[int]]) -> None:
        reply.send("no")  # wrong

class W5(Actor):
    @on_batch(Get)  # wrong
    async def _(self, batch: Sequence[tuple[Get, Reply[str]]]) -> None: ...

class W6(Actor):
    @on_down  # wrong
    async def _(self, down: Tick) -> None: ...

class W7(Actor):
    @on_deferred(Tick)  # wrong
    async def _(self, message: Tick, reply: Reply[None]) -> None: ...
"""

REVEALED = """
from __future__ import annotations
from collections.abc import Sequence
from supervisor import Actor, ChildSpec, Down, Message, Pending, Ref, Reply, Request, SupervisorSpec
from supervisor import on_batch, on_deferred, on_down, open_tree
from supervisor.testing import EventLog, VirtualClock

class Get(Request[list[int]], frozen=True): ...
class Nothing(Request[None], frozen=True): ...
class Either(Request[int | str], frozen=True): ...
class Derived(Get, frozen=True): ...
class Tick(Message, frozen=True): ...

async def use(ref: Ref) -> None:
    reveal_type(await ref.call(Get()))  # list[int]
    reveal_type(await ref.call(Nothing()))  # None
    reveal_type(await ref.call(Either()))  # int | str
    reveal_type(await ref.call(Derived()))  # list[int]
    reveal_type(ref.request(Get(), timeout=1))  # Pending[list[int]]
    reveal_type(await ref.request(Get(), timeout=1))  # list[int]
    reveal_type(ref.request(Get(), timeout=1).result())  # list[int]
    reveal_type(ref.cast(Tick()))  # None

class Some(Actor):
    @on_deferred(Get)
    async def _(self, message: Get, reply: Reply[list[int]]) -> None:
        reveal_type(reply)  # Reply[list[int]]
        reveal_type(self.context.ref("a"))  # Ref
        reveal_type(self.context.incarnation)  # int
    @on_batch(Either)
    async def _(self, batch: Sequence[tuple[Either, Reply[int | str]]]) -> None:
        reveal_type(batch[0][1])  # Reply[int | str]
    @on_down
    async def _(self, down: Down) -> None:
        reveal_type(down.reason)  # Normal | Shutdown | Killed | Crash | StartFailed | Timeout

async def tree() -> None:
    spec = SupervisorSpec("root", [ChildSpec("a", Some)])
    reveal_type(spec)  # SupervisorSpec
    reveal_type(spec.children)  # Sequence[ChildSpec | SupervisorSpec]
    async with open_tree(spec, clock=VirtualClock()) as tree:
        reveal_type(tree)  # Tree
        reveal_type(tree.ref("a"))  # Ref
        reveal_type(await tree.supervisor("root").start_child(ChildSpec("b", Some)))  # Ref
        reveal_type(await tree.wait())  # ExitReport
        reveal_type(tree.view().uptime_s)  # float | None
        reveal_type(tree.introspection.state("a").pid)  # int | None
        reveal_type(await EventLog(tree.stream).wait_for(actor="a"))  # dict[str, Any]
        async for event in tree.stream.subscribe(["crashes"]):
            reveal_type(event)  # TailEvent
"""

Found = tuple[set[str], dict[str, str]]
"""Places with an error, and the types that were revealed, by place: the file and the line."""


def run(command: list[str], folder: Path) -> str:
    # Without a look for a newer version of itself.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", *command]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout


def mypy(folder: Path) -> Found:
    said = run(["mypy", "--strict", "--no-error-summary", "--cache-dir", "cache", "."], folder)
    errors, types = set(), {}
    for line in said.splitlines():
        file, number, kind, text = line.split(":", 3)
        place = f"{file}:{number}"
        if kind == " error":
            errors.add(place)
        elif found := re.search(r'Revealed type is "(.*)"', text):
            types[place] = re.sub(r"\b(\w+\.)+", "", found[1])
    return errors, types


def pyright(folder: Path) -> Found:
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    settings |= {"reportUnusedImport": False, "reportUnusedVariable": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    said = run(["pyright", "--outputjson", "--pythonpath", sys.executable], folder)
    errors, types = set(), {}
    for one in json.loads(said)["generalDiagnostics"]:
        place = f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}"
        if one["severity"] == "error":
            errors.add(place)
        elif found := re.search(r'Type of ".*" is "(.*)"', one["message"]):
            types[place] = found[1]
    return errors, types


@pytest.mark.parametrize("check", [mypy, pyright])
def test_reply_types_are_proved(check: Callable[[Path], Found], tmp_path: Path) -> None:
    texts = {"right.py": PREAMBLE + RIGHT, "wrong.py": PREAMBLE + WRONG, "revealed.py": REVEALED}
    wrong: set[str] = set()
    types: dict[str, str] = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        for number, line in enumerate(text.splitlines(), 1):
            if line.endswith("# wrong"):
                wrong.add(f"{name}:{number}")
            elif "reveal_type" in line:
                types[f"{name}:{number}"] = line.partition("  # ")[2]
    assert check(tmp_path) == (wrong, types)
