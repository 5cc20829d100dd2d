"""``docs/wire.md`` is true: its tests exist, its tables are those of the code, and its example does what it says."""

from __future__ import annotations

import ast
import json
import re
import shutil
import socket
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from protocol.limits import Limits
from protocol.wire import CLOSING, NOTHING_DONE, Code
from supervisor import ChildSpec, SupervisorSpec, open_tree
from supervisor.control import ControlSocket
from tests.protocol.house import in_thread

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "wire.md").read_text()
REFERENCE = re.compile(r"`([\w./]+\.py)::(test_\w+)`")
(EXAMPLE,) = re.findall(r"^```sh\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL)


def names_in(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


def rows(title: str) -> list[list[str]]:
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_every_test_on_the_page_exists() -> None:
    named: dict[str, set[str]] = {}
    for file, test in REFERENCE.findall(PAGE):
        named.setdefault(file, set()).add(test)
    missing = {file: tests - names_in(HERE / file) for file, tests in named.items()}
    assert not any(missing.values()), missing


def test_every_sentence_names_its_test() -> None:
    sentences = [part.split("\n\n")[0] for part in re.split(r"^- ", PAGE, flags=re.MULTILINE)[1:]]
    assert len(sentences) > 30
    for sentence in [*sentences, *(row[-1] for row in rows("Limits"))]:
        assert REFERENCE.search(sentence), sentence


def test_the_codes_are_those_of_the_wire() -> None:
    every = {value for name, value in vars(Code).items() if name.isupper()}
    told = {row[0].strip("`"): (bool(row[1]), bool(row[2])) for row in rows("Failures")}
    assert told == {code: (code in CLOSING, code in NOTHING_DONE) for code in every}


def test_the_limits_are_those_of_the_server() -> None:
    told = {row[0].strip("`"): float(row[1].split()[0]) for row in rows("Limits")}
    assert told == {name: float(value) for name, value in asdict(Limits()).items()}


def say_by_socat(path: Path) -> bytes:
    script = re.sub(r"UNIX-CONNECT:\S+", f"UNIX-CONNECT:{path}", EXAMPLE)
    return subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, timeout=20, check=True).stdout


def say_by_hand(path: Path) -> bytes:
    """What socat does with the same lines."""
    (lines,) = re.findall(r"<<'END'\n(.*?)END\n", EXAMPLE, re.DOTALL)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(lines.encode())
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answers:
            return answers.read()


@pytest.mark.anyio
async def test_the_example(path: Path) -> None:
    spec = ChildSpec("ControlSocket", lambda: ControlSocket(path))
    async with open_tree(SupervisorSpec("root", [spec])):
        said = await in_thread(say_by_socat if shutil.which("socat") else say_by_hand, path)
    welcome, *answers = map(json.loads, said.splitlines())
    assert welcome["type"] == "welcome"
    told = {answer["id"]: answer for answer in answers}
    assert (told["a1"]["type"], told["a1"]["body"]["id"]) == ("reply", "root")
    assert (told["a2"]["type"], told["a2"]["code"]) == ("error", "unknown_actor")
    assert len(answers) == 2
