"""How long somebody who behaves waits beside somebody who does not: p99 of a call to an actor, against quiet.

The server, the one and the other are processes of their own. The abuser has the lowest priority of the machine: it is
the server's justice that is measured, not the kernel's. Where other programs keep the processors busy the kernel's is
what shows all the same; ``server_cpu_ms`` is free of it: what the server's process worked between question and answer.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path

from benchmarks.wire_tree import Echo
from protocol.client import Client
from protocol.framing import HEADER, Encoding, encode
from tests.protocol.fuzz.seeds import ENCODINGS, frames, spoken
from tests.protocol.house import hello

MOST = 2.0
REPEATS = 5
CALLS = 1500
BETWEEN = 0.0005
"""Seconds between two calls."""
BODY = b"x" * 90


def changed_frames(dice: random.Random, encoding: Encoding) -> bytes:
    """A conversation of golden frames, with some bytes changed."""
    said = bytearray(b"".join(dice.choices(frames("client", encoding) + spoken(encoding), k=20)))
    for _ in range(dice.randrange(4)):
        said[dice.randrange(len(said))] = dice.randrange(256)
    return bytes(said)


def tiny_frames(dice: random.Random, encoding: Encoding) -> bytes:
    """As many malformed messages as go into 64 KiB."""
    return b"1\n" * 32_000 if encoding == "json" else (HEADER.pack(1) + b"\xc0") * 13_000


def questions(dice: random.Random, encoding: Encoding) -> bytes:
    """Hundreds of questions at once, each answered with a failure."""
    asked = {"type": "request", "id": "a", "to": "parrot", "body": {"type": "count", "more": 1}}
    return encode(asked, encoding) * 600


def nothing(dice: random.Random, encoding: Encoding) -> bytes:
    """A connection, a hello, and gone."""
    return b""


ABUSES: tuple[Callable[[random.Random, Encoding], bytes], ...] = (changed_frames, tiny_frames, questions, nothing)


def abuse(path: str, number: int, enough: Event) -> None:
    """Say it again and again, over connections that are made anew when the server ends them, and read what comes."""
    os.nice(19)
    dice = random.Random(number)
    while not enough.is_set():
        encoding = dice.choice(ENCODINGS)
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(path)
            client.settimeout(0.2)
            client.sendall(encode(hello(), encoding))
            reader = threading.Thread(target=drain, args=(client.dup(),))
            reader.start()
            while not enough.is_set() and (said := ABUSES[number](dice, encoding)):
                client.sendall(said)
            client.shutdown(socket.SHUT_RDWR)
            reader.join()


def drain(client: socket.socket) -> None:
    with client, suppress(OSError):
        while client.recv(1 << 18):
            pass


@contextmanager
def beside(path: str, number: int) -> Iterator[None]:
    enough = mp.get_context("spawn").Event()
    abuser = mp.get_context("spawn").Process(target=abuse, args=(path, number, enough))
    abuser.start()
    time.sleep(1)  # it is a process that has to start; it tells nobody when it is at it
    try:
        yield
    finally:
        enough.set()
        abuser.join(10)
        abuser.kill()


def p99(path: str, server: int) -> tuple[float, float]:
    """Return the 99th percentiles of a call, in seconds: as they pass, and of the processor in the server's process."""
    taken, worked = [], []
    clock = ~server << 3 | 2  # what clock_getcpuclockid(3) gives for a process
    with Client.connect(path) as client:
        for _ in range(CALLS):
            before = time.clock_gettime(clock)
            begun = time.perf_counter()
            client.call("parrot", Echo(BODY), timeout=30)
            taken.append(time.perf_counter() - begun)
            worked.append(time.clock_gettime(clock) - before)
            time.sleep(BETWEEN)
    return sorted(taken)[int(CALLS * 0.99)], sorted(worked)[int(CALLS * 0.99)]


Measured = list[tuple[float, float]]


def median_ratio(above: Measured, below: Measured, which: int) -> float:
    return statistics.median(a[which] / b[which] for a, b in zip(above, below, strict=True))


def in_ms(measured: Measured, which: int) -> list[float]:
    return [round(each[which] * 1e3, 3) for each in measured]


def main() -> int:
    """Print a line for each abuse; return 1 if one made others wait too long."""
    missed = 0
    root = Path(__file__).resolve().parents[3]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/control.sock"
        command = [sys.executable, "-P", "-m", "benchmarks.wire_tree", path, "asyncio"]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            for number, kind in enumerate(ABUSES):
                quiet: Measured = []
                abused: Measured = []
                for _ in range(REPEATS):
                    quiet.append(p99(path, server.pid))
                    with beside(path, number):
                        abused.append(p99(path, server.pid))
                ratio = median_ratio(abused, quiet, 0)
                detail: dict[str, object] = {"server_cpu_ratio": round(median_ratio(abused, quiet, 1), 2)}
                for which, name in enumerate(("wall_ms", "server_cpu_ms")):
                    detail[name] = {"quiet": in_ms(quiet, which), "abused": in_ms(abused, which)}
                met = ratio <= MOST
                missed += not met
                name = f"others beside {kind.__name__.replace('_', ' ')}"
                line = {"name": f"fuzz {name}", "ratio": round(ratio, 2), "target": MOST, "met": met, "detail": detail}
                print(json.dumps(line), flush=True)
            server.kill()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
