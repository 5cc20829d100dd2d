"""What mypy --strict proves: a call has the type of its reply, and a handler that answers with another is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_reply_types_are_proved(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(PREAMBLE + RIGHT)
    wrong.write_text(PREAMBLE + WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, str(right), str(wrong)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    found = {
        line.split(":")[1] for line in done.stdout.splitlines() if line.startswith(str(wrong)) and " error: " in line
    }
    expected = {
        str(number) for number, line in enumerate((PREAMBLE + WRONG).splitlines(), 1) if line.endswith("# wrong")
    }
    assert found == expected, done.stdout
    assert str(right) not in done.stdout
