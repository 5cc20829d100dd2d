"""W4: calls over a Unix socket, 100 in flight, against gRPC's own asyncio API, where grpcio is installed.

``pip install -e .[bench]`` installs it. Each side has a server process of its own. gRPC carries the same 90 bytes, with
no serializer: what is compared is the way there and back.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import tempfile

from benchmarks.grpc_reference import questions_at_once
from benchmarks.result import interleaved, report
from benchmarks.w1_wire import calls_at_once, serving

TARGET = 15.0
REPEATS = 7


def main() -> None:
    if importlib.util.find_spec("grpc") is None:
        print(json.dumps({"name": "W4", "skipped": "grpcio is not installed"}), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        here, there = f"{folder}/ours", f"{folder}/grpc"
        with serving("benchmarks.wire_tree", here, "asyncio"), serving("benchmarks.grpc_reference", there):
            medians = interleaved(
                {
                    "ours": lambda: asyncio.run(calls_at_once(here)),
                    "grpc": lambda: asyncio.run(questions_at_once(there)),
                },
                REPEATS,
            )
    rates = {name: round(rate) for name, rate in medians.items()}
    report("W4", medians["ours"] / medians["grpc"], "at least", TARGET, per_second=rates)


if __name__ == "__main__":
    main()
