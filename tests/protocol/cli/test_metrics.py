"""``metrics``: fetched from the address that ``status`` shows."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from protocol.cli.metrics import parse
from protocol.home import Home
from tests.protocol.cli.conftest import Run

TEXT = """\
# HELP stokehold_up One.
# TYPE stokehold_up gauge
stokehold_up 1.0
stokehold_restarts_total{actor="QueueManager",why="a \\"b\\", \\\\c"} 3
stokehold_loss NaN
"""


class Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Exporter)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def serve_at(home: Home, port: int) -> None:
    (home.root / "canned.json").write_text(json.dumps({"http": {"host": "127.0.0.1", "port": port}}))


def test_prints_the_text_as_it_is(run: Run, home: Home, daemon: subprocess.Popen[bytes], port: int) -> None:
    serve_at(home, port)
    done = run("metrics", "--home", home.root)
    assert (done.returncode, done.stdout) == (0, TEXT)


def test_json(run: Run, home: Home, daemon: subprocess.Popen[bytes], port: int) -> None:
    serve_at(home, port)
    assert json.loads(run("metrics", "--json", "--home", home.root).stdout) == [
        {"name": "stokehold_up", "labels": {}, "value": 1.0},
        {"name": "stokehold_restarts_total", "labels": {"actor": "QueueManager", "why": 'a "b", \\c'}, "value": 3.0},
        {"name": "stokehold_loss", "labels": {}, "value": None},
    ]


def test_off_is_a_failure_that_says_so(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    done = run("metrics", "--home", home.root)
    assert done.returncode == 1
    assert "http.port" in done.stderr


def test_nobody_listening_there(run: Run, home: Home, daemon: subprocess.Popen[bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    serve_at(home, port)
    done = run("metrics", "--home", home.root)
    assert done.returncode == 1
    assert f"http://127.0.0.1:{port}/metrics" in done.stderr


@pytest.mark.parametrize("line", ["", "# TYPE x gauge", "  "])
def test_what_is_no_sample(line: str) -> None:
    assert parse(line) is None


def test_a_sample_with_a_time() -> None:
    assert parse('x{a="\\n"} +Inf 1700000000') == {"name": "x", "labels": {"a": "\n"}, "value": None}
