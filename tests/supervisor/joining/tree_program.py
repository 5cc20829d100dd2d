"""The program of a tree, to be killed: ``python -m tests.supervisor.joining.tree_program PATH LOOP``."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from supervisor import ChildSpec, SupervisorSpec, joinable, open_tree
from supervisor.control import ControlSocket
from tests.supervisor.process_actors import Add, Note, Noted, Worker


async def run(path: Path) -> None:
    public = {"Guest": (Add, Note, Noted)}
    children = [
        ChildSpec("Peer", Worker),
        joinable("Guest"),
        ChildSpec("ControlSocket", lambda: ControlSocket(path, public)),
    ]
    async with open_tree(SupervisorSpec("root", children)):
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    anyio.run(run, Path(sys.argv[1]), backend=sys.argv[2])
