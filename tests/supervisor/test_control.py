"""A control socket in anyone's tree: typed clients, and the command line as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from protocol.aclient import Failed, connect
from protocol.messages.common import TailEvent
from protocol.messages.system import GetActor, GetEvents, GetTree, RestartActor, ResumeActor, SuspendActor
from protocol.wire import Code
from supervisor import ChildSpec, SupervisorSpec, Tree, open_tree
from supervisor.control import REMEMBERED, ControlSocket
from supervisor.testing import eventually, settle
from tests.supervisor.helpers import Counter, Fail, GetAll, Hold, Put, Refuse
from tests.supervisor.process_actors import Add, Note
from tests.supervisor.processes import process_child

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PUBLIC = {"a": (Put, GetAll, Refuse), "Worker": (Note, Add)}


@asynccontextmanager
async def tree_at(socket: Path, *more: ChildSpec) -> AsyncIterator[Tree]:
    """Somebody else's tree: a counter, and a control socket in the folder of the test."""
    spec = ChildSpec("ControlSocket", lambda: ControlSocket(socket, PUBLIC, topics=["numbers"]))
    counter = ChildSpec("a", Counter, shutdown=0.5)
    async with open_tree(SupervisorSpec("root", [counter, *more, spec], intensity=9)) as tree:
        yield tree


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run" / "control.sock"


async def code_of(client: Any, message: Any, to: str = "ControlSocket", timeout: float = 5.0) -> str:
    with pytest.raises(Failed) as failed:
        await client.call(to, message, timeout)
    return failed.value.code


async def test_every_order_over_the_socket(socket: Path) -> None:
    async with tree_at(socket) as tree, connect(socket) as client:
        assert [child.id for child in (await client.call("ControlSocket", GetTree())).children] == [
            "a",
            "ControlSocket",
        ]
        assert (await client.call("ControlSocket", SuspendActor("a"))).detail == "a is suspended"
        await client.cast("a", Put(1))
        assert await code_of(client, GetAll(), to="a", timeout=0.2) == Code.TIMED_OUT
        state = await client.call("ControlSocket", GetActor("a"))
        assert (state.status, state.waiting.get("Put")) == ("suspended", 1)
        await client.call("ControlSocket", ResumeActor("a"))
        assert await client.call("a", GetAll()) == [1]
        state = await client.call("ControlSocket", RestartActor("a"))
        assert (state.incarnation, state.status) == (2, "running")
        assert tree.introspection.state("a").incarnation == 2


async def test_what_cannot_be_done_is_refused_in_words(socket: Path) -> None:
    async with tree_at(socket) as tree, connect(socket) as client:
        for message in (GetActor("b"), SuspendActor("b"), ResumeActor("b"), RestartActor("b"), SuspendActor("root")):
            assert await code_of(client, message) == "no_such_actor"
        assert await code_of(client, SuspendActor("ControlSocket")) == "never_suspended"
        assert await code_of(client, RestartActor("root")) == "no_such_actor"
        holding = tree.ref("a").request(Hold(), timeout=60)
        await settle()
        assert await code_of(client, SuspendActor("a"), timeout=0.2) == Code.TIMED_OUT
        holding.cancel()
        with pytest.raises(Failed) as failed:
            async with client.subscribe(["trace/b"]):
                pass
        assert failed.value.code == Code.UNKNOWN_ACTOR


async def test_the_newest_events_of_each_topic_are_remembered(socket: Path) -> None:
    async with tree_at(socket) as tree, connect(socket) as client:
        tree.ref("a").cast(Fail("first"))
        await eventually(lambda: tree.introspection.state("a").incarnation == 2)
        for number in range(REMEMBERED + 5):
            tree.stream.publish("numbers", {"event": number})
        recent = await client.call("ControlSocket", GetEvents())
        assert recent.topics == ["crashes", "lifecycle", "numbers"]
        assert [event.data["event"] for event in recent.events if event.topic == "numbers"] == [*range(5, 105)]
        assert [event.topic for event in recent.events[:3]] == ["lifecycle", "lifecycle", "crashes"], "by time"
        crashes = await client.call("ControlSocket", GetEvents(("crashes",)))
        assert [event.data["reason"] for event in crashes.events] == ["crash: ValueError: first"]
        assert crashes == await client.call("ControlSocket", GetEvents(("crashes", "crashes"))), "asking takes nothing"
        assert await code_of(client, GetEvents(("trace/a",))) == Code.UNKNOWN_TOPIC


async def test_an_order_may_be_cast(socket: Path) -> None:
    async with tree_at(socket) as tree, connect(socket) as client:
        await client.cast("ControlSocket", SuspendActor("a"))
        await eventually(lambda: tree.introspection.state("a").status == "suspended", 5)


async def test_a_trace_ends_with_its_connection(socket: Path) -> None:
    async with tree_at(socket) as tree:
        async with connect(socket) as client, client.subscribe(["trace/a", "crashes"]) as events:
            tree.ref("a").cast(Put(1))
            event = await anext(events)
            assert isinstance(event, TailEvent)
            assert (event.topic, event.data["message"]) == ("trace/a", "Put")
        await eventually(lambda: not tree.stream.is_heard("trace/a"), 5)


async def test_the_socket_restarts_itself_on_request(socket: Path) -> None:
    async with tree_at(socket) as tree:
        async with connect(socket) as client:
            assert await code_of(client, RestartActor("ControlSocket")) in (Code.CONNECTION_LOST, Code.RESTARTING)
        state = tree.introspection.state
        await eventually(lambda: state("ControlSocket").incarnation == 2 and socket.exists(), 5)
        async with connect(socket) as client:
            await client.call("ControlSocket", GetTree())


# ---------------------------------------------------------------- the command line


async def cli(socket: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command against this socket, while the tree goes on."""
    command = [sys.executable, "-P", "-m", "protocol.cli.main", *words, "--socket", str(socket)]
    run = lambda: subprocess.run(  # noqa: E731
        command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}
    )
    return await anyio.to_thread.run_sync(run)


async def test_state_suspend_resume_and_restart_by_hand(socket: Path) -> None:
    async with tree_at(socket, process_child()) as tree:
        for name in ("a", "Worker"):
            done = await cli(socket, "actor", "suspend", name)
            assert (done.returncode, done.stdout) == (0, "")
            assert done.stderr == f"{name} is suspended; go on with: stokehold --socket {socket} actor resume {name}\n"
            shown = json.loads((await cli(socket, "actor", "state", name, "--json")).stdout)
            assert (shown["name"], shown["status"], shown["incarnation"]) == (name, "suspended", 1)
            assert f"{name}  suspended  incarnation 1" in (await cli(socket, "actor", "state", name)).stdout
            done = await cli(socket, "actor", "resume", name, "--json")
            assert json.loads(done.stdout) == {"detail": f"{name} is resumed"}
            done = await cli(socket, "actor", "restart", name, "--json")
            assert done.returncode == 0, done.stderr
            assert (json.loads(done.stdout)["incarnation"], tree.introspection.state(name).restarts) == (2, 1)
        tree.ref("a").cast(Fail("by the test"))
        await eventually(lambda: tree.introspection.state("a").incarnation == 3, 5)
        shown_text = (await cli(socket, "actor", "state", "a")).stdout
        assert "last exit     crash: ValueError: by the test" in shown_text
        assert "raise ValueError(message.text)" in shown_text


async def test_restart_of_what_answers_waits_until_it_is_back(socket: Path) -> None:
    async with tree_at(socket):
        done = await cli(socket, "actor", "restart", "ControlSocket", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["incarnation"] == 2


async def test_refusals_have_exit_code_1_and_say_what_to_do(socket: Path) -> None:
    async with tree_at(socket):
        for action in ("state", "suspend", "resume", "restart"):
            done = await cli(socket, "actor", action, "nobody")
            assert done.returncode == 1, action
            assert "nobody here is called 'nobody'; there are: ControlSocket, a, root" in done.stderr
            assert f"see: stokehold --socket {socket} tree" in done.stderr
        done = await cli(socket, "actor", "trace", "nobody")
        assert (done.returncode, done.stdout) == (1, "")
        assert "nobody here is called 'nobody'" in done.stderr
    done = await cli(socket, "actor", "state", "a")
    assert done.returncode == 3, "the tree is gone"


async def test_send_prints_the_reply_of_a_request_and_casts_the_rest(socket: Path) -> None:
    async with tree_at(socket, process_child()) as tree:
        done = await cli(socket, "send", "a", '{"type": "put", "value": 5}')
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "a has it; it is not answered\n"
        done = await cli(socket, "send", "a", '{"type": "get_all"}')
        assert (done.returncode, json.loads(done.stdout)) == (0, [5])
        done = await cli(socket, "send", "Worker", '{"type": "add", "left": 2, "right": 3}')
        assert (done.returncode, json.loads(done.stdout)) == (0, 5)
        done = await cli(socket, "send", "a", '{"type": "refuse"}')
        assert (done.returncode, done.stdout) == (1, "")
        assert "not today" in done.stderr
        await tree.introspection.suspend("a")
        done = await cli(socket, "send", "a", '{"type": "get_all"}', "--timeout", "0.3")
        assert done.returncode == 1 and "did not answer" in done.stderr


@pytest.mark.parametrize(
    ("to", "message", "code", "said"),
    [
        ("a", "{", 2, "no JSON"),
        ("a", "[1]", 2, "a JSON object with a type"),
        ("a", '{"type": "burn"}', 1, "a does not take 'burn'; it takes: get_all, put, refuse"),
        ("a", '{"type": "put", "value": "x"}', 1, "put: Expected `int`, got `str` - at `$.value`"),
        ("a", '{"type": "put", "number": 1}', 1, "put: Object contains unknown field `number`"),
        ("b", '{"type": "put", "value": 1}', 1, "nobody here takes messages as 'b'"),
    ],
)
async def test_what_cannot_be_sent(socket: Path, to: str, message: str, code: int, said: str) -> None:
    async with tree_at(socket):
        done = await cli(socket, "send", to, message)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr


async def test_what_to_do_next_is_of_this_tree_and_not_of_the_daemon(socket: Path) -> None:
    """Who gave ``--socket`` alone is told commands that reach the same tree, and none of a daemon that is not there."""
    tree_command = f"→ see: stokehold --socket {socket} tree\n"
    async with tree_at(socket) as tree:
        done = await cli(socket, "actor", "state", "nobody")
        assert (done.returncode, done.stderr.count(tree_command)) == (1, 1), done.stderr
        done = await cli(socket, "actor", "trace", "nobody")
        assert (done.returncode, done.stderr.count(tree_command)) == (1, 1), done.stderr
        done = await cli(socket, "send", "nobody", '{"type": "get_all"}')
        assert (done.returncode, done.stderr.count(tree_command)) == (1, 1), done.stderr
        await tree.introspection.suspend("a")
        done = await cli(socket, "send", "a", '{"type": "get_all"}', "--timeout", "0.1")
        assert (done.returncode, done.stderr.count(tree_command)) == (1, 1), done.stderr
        await tree.introspection.resume("a")
        await tree.supervisor("root").terminate_child("a")
        done = await cli(socket, "send", "a", '{"type": "get_all"}')
        assert (done.returncode, done.stderr.count(tree_command)) == (1, 1), done.stderr
        done = await cli(socket, "status")
        assert done.returncode == 1
        assert "ControlSocket does not take 'get_status'; it takes: get_actor, " in done.stderr
    done = await cli(socket, "tree")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"nobody answers at {socket}" in done.stderr and "start the program whose tree it is" in done.stderr


async def test_tree_by_hand(socket: Path) -> None:
    async with tree_at(socket):
        drawn = (await cli(socket, "tree")).stdout.splitlines()
        assert [line.split()[:2] for line in drawn] == [["root", "running"], ["├─", "a"], ["└─", "ControlSocket"]]
        told = json.loads((await cli(socket, "tree", "--json")).stdout)
        assert [child["id"] for child in told["children"]] == ["a", "ControlSocket"]


async def test_events_by_hand(socket: Path) -> None:
    """Those that were, and it ends; with ``-f`` those that come; all topics of this tree."""
    async with tree_at(socket) as tree:
        tree.ref("a").cast(Fail("first"))
        await eventually(lambda: tree.introspection.state("a").incarnation == 2)
        tree.stream.publish("numbers", {"event": "seven", "value": 7})
        done = await cli(socket, "events")
        assert done.returncode == 0, done.stderr
        topics = [line.split()[1] for line in done.stdout.splitlines()]
        assert topics == ["lifecycle", "lifecycle", "crashes", "lifecycle", "lifecycle", "lifecycle", "numbers"]
        assert done.stdout.splitlines()[-1].endswith("seven  value=7")
        done = await cli(socket, "events", "--topic", "queue")
        assert (done.returncode, done.stdout) == (1, "")
        assert "there are: crashes, lifecycle, numbers" in done.stderr
        async with listening(socket, "events", "-f") as line:
            tree.stream.publish("numbers", {"event": "eight"})
            told = await line()
            assert (told["topic"], told["data"]) == ("numbers", {"event": "eight"})


@asynccontextmanager
async def listening(socket: Path, *words: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """A command that goes on, once it listens: what gives the next line that it prints."""
    command = [sys.executable, "-P", "-m", "protocol.cli.main", *words, "--socket", str(socket), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    async def line() -> Any:
        assert process.stdout is not None
        return json.loads(await anyio.to_thread.run_sync(process.stdout.readline))

    try:
        assert process.stderr is not None
        assert await anyio.to_thread.run_sync(process.stderr.readline) == "listening\n"
        yield line
    finally:
        process.kill()
        process.communicate()


async def test_trace_by_hand(socket: Path) -> None:
    async with tree_at(socket) as tree, listening(socket, "actor", "trace", "a") as line:
        await tree.ref("a").call(GetAll())
        told = [await line() for _ in range(2)]
        assert [(one["topic"], one["data"]["event"], one["data"]["message"]) for one in told] == [
            ("trace/a", "call", "GetAll"),
            ("trace/a", "reply", "GetAll"),
        ]
