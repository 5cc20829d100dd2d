"""The exporter over real HTTP, read with the client library's own parsers."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from actors.board import Board, Held
from actors.metrics import ACTORS
from actors.metrics_exporter import MetricsExporter
from actors.settings_store import ConfigStore
from protocol.config import Config, HttpSection
from protocol.messages.common import Trouble
from protocol.messages.disk import DiskView
from protocol.messages.queue import GateView, QueueCounts
from protocol.messages.system import HttpStatus, ModelStatus
from protocol.messages.trainer import Progress
from supervisor import Actor, ChildSpec, CoolDown, SupervisorSpec, Tree, open_tree
from supervisor.testing import eventually

pytestmark = pytest.mark.anyio

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

PROGRESS = Progress(
    id="1", file="secret-name.jsonl", priority="normal", attempt=1, phase="training", step=7, steps_total=20,
    samples_done=70, samples_total=200, tokens=1000, loss=1.5, tokens_per_s=250.0, eta_s=3.0, global_step=107,
    version=4, behind_steps=3, learning_rate=1e-4, grad_norm=0.5,
)  # fmt: skip


@dataclass
class Room:
    tree: Tree
    board: Board
    registry: CollectorRegistry

    async def get(self, path: str, accept: str = "", method: str = "GET") -> tuple[int, str, str]:
        """Return status, content type and body."""
        where = self.board.http
        assert where is not None

        def fetch() -> tuple[int, str, str]:
            connection = http.client.HTTPConnection(where.host, where.port, timeout=10)
            try:
                connection.request(method, path, headers={"Accept": accept} if accept else {})
                answer = connection.getresponse()
                return answer.status, answer.headers["content-type"] or "", answer.read().decode()
            finally:
                connection.close()

        return await to_thread.run_sync(fetch)

    async def samples(self) -> dict[tuple[str, ...], float]:
        """Return every sample, by its name and the values of its labels."""
        _, _, body = await self.get("/metrics")
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in parse_text(body)
            for sample in family.samples
        }


@asynccontextmanager
async def room(
    port: int = 0, *, host: str = "127.0.0.1", board: Board | None = None, registry: CollectorRegistry | None = None
) -> AsyncIterator[Room]:
    board, registry = board or Board(), registry or CollectorRegistry()
    store = ConfigStore(Config(http=HttpSection(host=host, port=port)))
    spec = SupervisorSpec(
        "root",
        [
            ChildSpec("QueueManager", Actor),
            ChildSpec("TrainerActor", Actor),
            SupervisorSpec(
                "edge",
                [ChildSpec("MetricsExporter", lambda: MetricsExporter(store, board, registry))],
                on_give_up=CoolDown(0.2),
            ),
        ],
    )
    async with open_tree(spec) as tree:
        yield Room(tree, board, registry)


async def test_any_free_port_is_found_and_shown() -> None:
    async with room() as the:
        assert the.board.http is not None
        assert the.board.http.host == "127.0.0.1"
        assert the.board.http.port > 0
        assert (await the.get("/healthz"))[::2] == (200, "ok\n")


async def test_the_text_format_is_valid_and_every_label_set_is_there_from_the_start() -> None:
    async with room() as the:
        found = await the.samples()
        for state in ("stopping", "starting", "paused", "blocked", "consolidating", "training", "idle"):
            assert found["stokehold_state", state] == (state == "starting")
        for queue in ("inbox", "high", "normal", "low", "processing", "failed", "done"):
            assert found["stokehold_queue_files", queue] == 0
        for actor in ACTORS:
            assert found["stokehold_actor_restarts_total", actor] == 0
            assert found["stokehold_actor_exits_total", actor, "crash"] == 0
        assert found["stokehold_job_events_total", "committed"] == 0
        assert found["stokehold_actor_up", "QueueManager"] == 1
        assert found["stokehold_actor_up", "ControlSocket"] == 0


async def test_openmetrics_is_served_to_who_asks_for_it() -> None:
    async with room() as the:
        status, content_type, body = await the.get("/metrics", OPENMETRICS)
        assert status == 200
        assert content_type.startswith("application/openmetrics-text")
        families = {family.name: family for family in parse_openmetrics(body)}
        assert families["stokehold_actor_restarts"].type == "counter"
        assert families["stokehold_state"].type == "gauge"
        assert all(family.documentation.endswith(".") for family in families.values())
        status, content_type, _ = await the.get("/metrics")
        assert content_type.startswith("text/plain")


async def test_the_metrics_follow_the_board() -> None:
    async with room() as the:
        the.board.queue_ready = True
        the.board.queue = QueueCounts(high=2, failed=1, processing=1)
        the.board.inbox_files = 5
        the.board.held = Held("1", 1)
        the.board.disk = DiskView(123, 456, 789, "low", 10, 20, 30)
        the.board.progress = PROGRESS
        the.board.model = ModelStatus(version=4, step=107, behind_steps=3)
        the.board.troubles["TrainerActor"] = Trouble("something")
        found = await the.samples()
        assert found["stokehold_state", "training"] == 1
        assert found["stokehold_queue_files", "high"] == 2
        assert found["stokehold_queue_files", "inbox"] == 5
        assert found["stokehold_disk_free_bytes",] == 123
        assert found["stokehold_disk_level", "low"] == 1
        assert found["stokehold_disk_level", "ok"] == 0
        assert found["stokehold_job_phase", "training"] == 1
        assert found["stokehold_job_loss",] == 1.5
        assert found["stokehold_job_tokens_per_second",] == 250
        assert found["stokehold_model_step",] == 107
        assert found["stokehold_model_behind_steps",] == 3
        assert found["stokehold_actor_trouble", "TrainerActor"] == 1
        the.board.gate = GateView(paused=True)
        found = await the.samples()
        assert found["stokehold_state", "paused"] == 1
        assert found["stokehold_gate_shut", "paused"] == 1
        for shut in (field for field in GateView.__struct_fields__ if not GateView(**{field: "because"}).open):
            the.board.gate = GateView(**{shut: "because"})
            found = await the.samples()
            assert found["stokehold_gate_shut", shut] == 1


async def test_no_name_of_a_file_or_job_gets_into_the_metrics_and_they_stay_few() -> None:
    async with room() as the:
        the.board.progress, the.board.held = PROGRESS, Held("1", 1)
        the.board.troubles["InboxWatcher"] = Trouble("secret-name.jsonl is bad")
        the.tree.stream.publish("queue", {"event": "secret-name", "file": "secret-name.jsonl"})
        _, _, body = await the.get("/metrics")
        assert "secret-name" not in body
        assert len(await the.samples()) < 500


async def test_a_crash_and_a_restart_are_counted() -> None:
    async with room() as the:
        the.tree.inject_fault("QueueManager", RuntimeError("a fault of the test"))

        async def counted() -> bool:
            found = await the.samples()
            return (found["stokehold_actor_exits_total", "QueueManager", "crash"] == 1) and (
                found["stokehold_actor_restarts_total", "QueueManager"] == 1
            )

        with anyio.fail_after(5):
            while not await counted():
                await anyio.lowlevel.checkpoint()


async def test_what_happens_to_jobs_is_counted_from_the_event_stream() -> None:
    async with room() as the:
        for event in ("accepted", "accepted", "committed"):
            the.tree.stream.publish("queue", {"event": event})
        with anyio.fail_after(5):
            while (await the.samples())["stokehold_job_events_total", "committed"] != 1:
                await anyio.lowlevel.checkpoint()
        assert (await the.samples())["stokehold_job_events_total", "accepted"] == 2


async def test_what_came_too_fast_to_be_counted_is_counted_as_missed() -> None:
    async with room() as the:
        for _ in range(10_007):
            the.tree.stream.publish("queue", {"event": "accepted"})
        with anyio.fail_after(5):
            while (await the.samples())["stokehold_job_events_total", "accepted"] != 10_000:
                await anyio.lowlevel.checkpoint()
        assert (await the.samples())["stokehold_job_events_missed_total",] == 7


async def test_a_name_that_is_no_host_is_a_trouble_too() -> None:
    async with room(host="ü" * 100) as the:
        assert "metrics are not served: üü" in str(the.board.troubles["MetricsExporter"])


async def test_a_restart_of_the_exporter_keeps_its_counters_and_counts_itself() -> None:
    async with room() as the:
        the.tree.stream.publish("queue", {"event": "accepted"})
        with anyio.fail_after(5):
            while (await the.samples())["stokehold_job_events_total", "accepted"] != 1:
                await anyio.lowlevel.checkpoint()
        the.tree.inject_fault("MetricsExporter", RuntimeError("a fault of the test"))
        await eventually(lambda: the.tree.view().children[-1].children[0].restarts == 1 and the.board.http is not None)
        found = await the.samples()
        assert found["stokehold_job_events_total", "accepted"] == 1
        assert found["stokehold_actor_exits_total", "MetricsExporter", "crash"] == 1


async def test_ready_means_that_files_are_taken_in() -> None:
    async with room() as the:
        status, _, body = await the.get("/readyz")
        assert (status, json.loads(body)["state"]) == (503, "starting")
        the.board.queue_ready = True
        status, _, body = await the.get("/readyz")
        assert (status, json.loads(body)["state"]) == (200, "idle")
        the.board.stopping = "SIGTERM"
        status, _, body = await the.get("/readyz")
        assert (status, json.loads(body)) == (503, {"state": "stopping", "reason": "SIGTERM"})


async def test_it_is_read_only_and_nothing_else_is_there() -> None:
    async with room() as the:
        assert (await the.get("/metrics", method="POST"))[0] == 405
        assert (await the.get("/metrics", method="HEAD"))[0] == 200
        assert (await the.get("/"))[0] == 404


async def test_a_taken_port_is_a_trouble_of_its_own_and_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with room(port) as the:
            assert the.board.http is None
            assert f"127.0.0.1 port {port}: Address already in use" in str(the.board.troubles["MetricsExporter"])
            assert the.tree.view().children[0].status == "running"
            other.close()
            await eventually(lambda: the.board.http == HttpStatus("127.0.0.1", port))
            assert "MetricsExporter" not in the.board.troubles
            assert (await the.get("/healthz"))[0] == 200


async def test_it_can_be_turned_off() -> None:
    async with room(-1) as the:
        assert the.board.http is None
        assert the.tree.view().children[-1].children[0].status == "running"


async def test_two_daemons_in_one_process_do_not_mix() -> None:
    async with room() as one, room() as two:
        one.board.inbox_files = 1
        assert (await one.samples())["stokehold_queue_files", "inbox"] == 1
        assert (await two.samples())["stokehold_queue_files", "inbox"] == 0


async def test_metrics_of_the_embedder_in_the_same_registry_are_served_too() -> None:
    registry = CollectorRegistry()
    Gauge("my_own", "Mine.", registry=registry).set(7)
    async with room(registry=registry) as the:
        assert (await the.samples())["my_own",] == 7


async def test_a_registry_serves_a_second_daemon_after_the_first() -> None:
    registry = CollectorRegistry()
    async with room(registry=registry):
        pass
    async with room(registry=registry) as the:
        the.board.inbox_files = 3
        assert (await the.samples())["stokehold_queue_files", "inbox"] == 3


async def test_it_stops_within_a_second_although_a_client_keeps_its_connection() -> None:
    async with room() as the:
        assert the.board.http is not None
        connection = http.client.HTTPConnection(the.board.http.host, the.board.http.port, timeout=10)

        def ask() -> bytes:
            connection.request("GET", "/metrics")
            return connection.getresponse().read()

        await to_thread.run_sync(ask)
        started = anyio.current_time()
        the.tree.request_shutdown("the end of the test")
        await the.tree.wait()
        assert anyio.current_time() - started < 0.9  # at 1 s it would be given up
        connection.close()


async def test_the_socket_is_not_inherited_by_processes_that_the_daemon_starts() -> None:
    async with room() as the:
        await the.get("/healthz")
        inheritable = []
        for link in Path("/proc/self/fd").iterdir():
            try:
                if os.get_inheritable(int(link.name)) and link.readlink().name.startswith("socket:"):
                    inheritable.append(link.name)
            except OSError:
                continue
        assert inheritable == []
