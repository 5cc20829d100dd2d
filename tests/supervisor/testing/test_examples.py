"""Everything public in the testing kit says how it is used, and the example runs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import supervisor
from supervisor import ChildSpec, Message, Request, SupervisorSpec, on, testing
from supervisor.testing import EventLog

pytestmark = pytest.mark.anyio

EXAMPLE = re.compile(r"^Example::\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)


class Add(Message, frozen=True):
    amount: int


class Total(Request[int], frozen=True):
    pass


class Counter(supervisor.Actor):
    def __init__(self) -> None:
        self.total = 0

    @on(Add)
    async def _(self, message: Add) -> None:
        self.total += message.amount

    @on(Total)
    async def _(self, message: Total) -> int:
        return self.total


def example(name: str) -> str:
    doc = inspect.getdoc(getattr(testing, name))
    found = EXAMPLE.search(f"{doc}\n")
    assert found, f"{name} has no example"
    return textwrap.dedent(found[1])


@pytest.mark.parametrize("name", testing.__all__)
async def test_the_example_runs(name: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {
        **{public: getattr(supervisor, public) for public in supervisor.__all__},
        **{public: getattr(testing, public) for public in testing.__all__},
        "Add": Add,
        "Total": Total,
        "folder": tmp_path,
        "pytest": pytest,
        "subprocess": subprocess,
        "sys": sys,
        "spec": SupervisorSpec("root", [ChildSpec("counter", Counter)], intensity=1000),
    }
    exec(f"async def run():\n{textwrap.indent(example(name), '    ')}", names)
    await names["run"]()


async def test_entries_in_the_wrong_order_are_told() -> None:
    spec = SupervisorSpec("root", [ChildSpec("counter", Counter)])
    async with supervisor.open_tree(spec) as tree:
        log = EventLog(tree.stream)
        tree.inject_fault("counter", ValueError("a fault of the test"))
        await log.wait_for(event="started", actor="counter")
        log.assert_in_order({"event": "exited"}, {"event": "started"})
        with pytest.raises(AssertionError, match=r"no .*exited.* after what goes before it"):
            log.assert_in_order({"event": "started"}, {"event": "exited"})
