"""The child's end of a process child: an event loop in the main thread, and in it one actor at the end of its link.

The end of file on the link is the daemon's death, and ends this process.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from typing import NoReturn

import anyio
import msgspec

from supervisor.actor import Actor
from supervisor.host_protocol import Backend
from supervisor.link_life import LinkLife
from supervisor.link_protocol import Start


def warm_up(backend: Backend) -> None:
    """Import what a child needs, in the host. Starts no event loop and no thread."""
    importlib.import_module(f"anyio._backends._{backend}")
    if backend == "trio":
        importlib.import_module("protocol.backend_trio")


def main(link: socket.socket, backend: Backend) -> NoReturn:
    """Run the actor that the daemon names, and end this process."""
    link.setblocking(False)
    anyio.run(_live, link, backend=backend)
    _exit(0)


async def _live(link: socket.socket) -> None:
    # Where the link has ended the daemon is gone, and nobody is left to stop gently for.
    await LinkLife(link, _make, on_lost=lambda: _exit(1)).run()
    _exit(0)  # before the event loop would wait for its threads


def _make(start: Start) -> Actor:
    module, _, name = start.target.partition(":")
    klass = getattr(importlib.import_module(module), name)
    if not (isinstance(klass, type) and issubclass(klass, Actor)):
        raise TypeError(f"{start.target} is no Actor class")
    return klass(**msgspec.msgpack.decode(start.arguments))


def _exit(code: int) -> NoReturn:
    """End at once: a worker thread that hangs must not hold up a process whose actor has ended."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also if the disk behind them is full
        os._exit(code)
