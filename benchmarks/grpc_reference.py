"""gRPC's asyncio API on a Unix socket: ``python -m benchmarks.grpc_reference PATH`` serves an echo of bytes."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

BODY = b"x" * 90
AT_ONCE = 100
EACH = 20
METHOD = "/benchmark.Parrot/Echo"


async def questions_at_once(path: str) -> float:
    """Return questions a second, so many callers at once on one channel."""
    import grpc.aio

    async def caller() -> None:
        for _ in range(EACH):
            await ask(BODY)

    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        ask: Any = channel.unary_unary(METHOD)
        await ask(BODY)
        begun = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        return AT_ONCE * EACH / (time.perf_counter() - begun)


async def main(path: str) -> None:
    import grpc.aio

    async def echo(message: bytes, context: object) -> bytes:
        return message

    server = grpc.aio.server()
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Parrot", handlers),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
