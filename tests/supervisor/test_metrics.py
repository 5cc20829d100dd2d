"""The metrics of anybody's tree, scraped over real HTTP and read with the client library's own parser."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import supervisor
from supervisor import ChildSpec, CoolDown, SupervisorSpec, Tree, TreeStartFailed, open_tree
from supervisor.dynamic import dynamic_supervisor
from supervisor.exporter import MetricsExporter
from supervisor.metrics import DEAD_LETTERS, ENDS, TreeMetrics
from supervisor.testing import EventLog, Gate, GatedActor, VirtualClock, eventually
from tests.supervisor.helpers import Counter, Fail, Hold, Put, StopYourself

pytestmark = pytest.mark.anyio

Samples = dict[tuple[str, ...], float]


def parsed(text: str) -> Samples:
    """Every sample, by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Room:
    tree: Tree

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = str(self.tree.introspection.state("MetricsExporter").summary["listening"]).partition(":")
        return host, int(port)

    async def get(self, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
        def fetch() -> tuple[int, str]:
            connection = http.client.HTTPConnection(*self.address, timeout=10)
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()

        return await to_thread.run_sync(fetch)

    async def samples(self) -> Samples:
        return parsed((await self.get())[1])


@asynccontextmanager
async def room(*children: ChildSpec | SupervisorSpec, intensity: int = 10) -> AsyncIterator[Room]:
    metrics = TreeMetrics("shop")
    exporter = ChildSpec("MetricsExporter", lambda: MetricsExporter(metrics, port=0))
    async with open_tree(SupervisorSpec("root", [*children, exporter], intensity=intensity)) as tree:
        yield Room(tree)


async def test_every_label_set_is_there_from_the_first_scrape_on() -> None:
    async with room(ChildSpec("a", Counter), SupervisorSpec("below", [ChildSpec("b", Counter)])) as the:
        assert the.address[0] == "127.0.0.1"
        found = await the.samples()
        for actor in ("a", "b", "MetricsExporter"):
            assert found["shop_actor_up", actor] == found["shop_actor_incarnation", actor] == 1
            assert found["shop_actor_uptime_seconds", actor] >= 0
            assert found["shop_actor_restarts_total", actor] == 0
            assert [found["shop_actor_exits_total", actor, end] for end in ENDS] == [0] * 6
        assert found["shop_supervisor_restarts_total", "root"] == found["shop_supervisor_restarts_total", "below"] == 0
        assert [found["shop_dead_letters_total", why] for why in DEAD_LETTERS] == [0] * len(DEAD_LETTERS)


async def test_restarts_are_counted_by_child_and_ends_by_reason() -> None:
    async with room(ChildSpec("a", Counter), ChildSpec("b", Counter)) as the:
        log = EventLog(the.tree.stream)
        the.tree.ref("a").cast(Fail())
        the.tree.ref("a").cast(StopYourself())
        await log.wait_for(event="started", actor="a", incarnation=3)
        found = await the.samples()
        assert found["shop_actor_exits_total", "a", "crash"] == found["shop_actor_exits_total", "a", "normal"] == 1
        assert (found["shop_actor_restarts_total", "a"], found["shop_actor_incarnation", "a"]) == (2, 3)
        assert found["shop_actor_restarts_total", "b"] == 0


async def test_what_waits_and_what_nobody_handled() -> None:
    async with room(ChildSpec("a", Counter)) as the:
        holding = the.tree.ref("a").request(Hold(), timeout=60)
        for number in range(3):
            the.tree.ref("a").cast(Put(number))
        await eventually(lambda: the.tree.introspection.state("a").mailbox == 3)
        the.tree.ref("nobody").cast(Put(0))
        found = await the.samples()  # with the actor wedged
        assert found["shop_actor_mailbox_messages", "a"] == 3
        assert found["shop_dead_letters_total", "not running"] == 1
        holding.cancel()
        await the.tree.introspection.restart("a")


async def test_counts_outlive_the_supervisor_that_was_restarted() -> None:
    below = SupervisorSpec("below", [ChildSpec("a", Counter)], intensity=1)
    async with room(below) as the:
        log = EventLog(the.tree.stream)
        for number in range(2):
            the.tree.ref("a").cast(Fail())
            await log.wait_for(event="started", actor="a", incarnation=number + 2)
        found = await the.samples()
        assert found["shop_actor_exits_total", "a", "crash"] == 2
        assert found["shop_supervisor_restarts_total", "below"] == 1
        assert found["shop_actor_up", "a"] == 1


async def test_children_that_come_and_go_are_one_series() -> None:
    async with room(dynamic_supervisor("guests")) as the:
        guests = the.tree.supervisor("guests")
        log = EventLog(the.tree.stream)
        for number in range(20):
            await guests.start_child(ChildSpec(f"guest {number}", Counter, restart="temporary"))
        inner = SupervisorSpec("group", [ChildSpec("in the group", Counter)], restart="temporary")
        await guests.start_child(inner)
        for number in range(5):
            the.tree.ref(f"guest {number}").cast(Fail())
            await log.wait_for(event="exited", actor=f"guest {number}")
        found = await the.samples()
        assert found["shop_actor_up", "guests/*"] == 20 - 5 + 2  # the group and the one in it
        assert found["shop_actor_exits_total", "guests/*", "crash"] == 5
        assert not [labels for labels in found if "guest 0" in labels or "in the group" in labels]
        await guests.terminate_child("group")
        for number in range(5, 20):
            await guests.terminate_child(f"guest {number}")
        found = await the.samples()
        assert (found["shop_actor_up", "guests/*"], found["shop_actor_exits_total", "guests/*", "crash"]) == (0, 5)


async def test_uptime_follows_the_clock_of_the_tree_and_a_failing_start_is_counted() -> None:
    clock, gate = VirtualClock(), Gate()
    spec = SupervisorSpec("root", [ChildSpec("a", lambda: GatedActor(gate))], on_give_up=CoolDown(60.0), intensity=0)
    async with open_tree(spec, clock=clock) as tree:
        registry = CollectorRegistry()
        registry.register(TreeMetrics("shop", tree.introspection))
        await clock.advance(30)
        gate.fail_next(OSError("no start"))
        tree.inject_fault("a", ValueError("test"))
        await clock.settle()
        found = parsed(generate_latest(registry).decode())
        assert (found["shop_actor_up", "a"], found["shop_actor_uptime_seconds", "a"]) == (0, 0)
        await clock.advance(60 + 60 + 5)
        found = parsed(generate_latest(registry).decode())
        assert (found["shop_actor_up", "a"], found["shop_actor_uptime_seconds", "a"]) == (1, 5)
        assert found["shop_actor_exits_total", "a", "start_failed"] == 1


async def test_the_metrics_of_the_program_are_served_with_them() -> None:
    registry, metrics = CollectorRegistry(), TreeMetrics()
    registry.register(metrics)
    Gauge("my_own", "Mine.", registry=registry).set(7)
    spec = ChildSpec("MetricsExporter", lambda: MetricsExporter(metrics, 0, registry=registry))
    async with open_tree(SupervisorSpec("root", [spec])) as tree:
        found = await Room(tree).samples()
        assert (found["my_own",], found["tree_actor_up", "MetricsExporter"]) == (7, 1)


async def test_it_is_read_only() -> None:
    async with room() as the:
        assert await the.get("/healthz") == (200, "ok\n")
        assert (await the.get(method="POST"))[0] == 405
        assert (await the.get("/"))[0] == 404


async def test_a_taken_port_is_a_failed_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        exporter = ChildSpec("MetricsExporter", lambda: MetricsExporter(TreeMetrics(), port))
        with pytest.raises(TreeStartFailed, match="Address already in use"):
            async with open_tree(SupervisorSpec("root", [exporter])):
                raise AssertionError("it listens at a port that is taken")


async def test_a_restarted_exporter_serves_the_same_counts() -> None:
    async with room(ChildSpec("a", Counter)) as the:
        log = EventLog(the.tree.stream)
        the.tree.ref("a").cast(Fail())
        await log.wait_for(event="started", actor="a", incarnation=2)
        await the.tree.introspection.restart("MetricsExporter")
        with anyio.fail_after(10):
            found = await the.samples()
        assert found["shop_actor_exits_total", "a", "crash"] == 1
        assert found["shop_actor_exits_total", "MetricsExporter", "shutdown"] == 1


def test_every_reason_of_a_dead_letter_is_known_in_advance() -> None:
    folder = Path(supervisor.__file__).parent
    said: set[str] = set()
    for path in folder.glob("*.py"):
        for line in re.findall(r"(?:dead_letter|bury|settle_stopped)\((.*)\)", path.read_text()):
            said |= set(re.findall(r'"([^"]+)"', line))
    assert said == set(DEAD_LETTERS)


async def test_an_actor_that_no_specification_names_has_no_series() -> None:
    async with room() as the:
        assert the.tree.ref("stranger").name == "stranger"
        assert not [labels for labels in await the.samples() if "stranger" in labels]
