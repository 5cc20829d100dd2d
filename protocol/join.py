"""The client's side of a join: connect, say hello, ask for a name, and have the bare socket of the link."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread

from protocol.dialogue import Dialogue, broken_connections_are_failures, failure, lost, welcomed
from protocol.framing import HEADER
from protocol.quick import open_socket
from protocol.wire import ReplyFrame, ServerFrame


async def join(path: Path, name: str, client: str, timeout: float) -> socket.socket:
    """Connect to the server at ``path`` and take the name. What comes on the socket next is the link's first frame.

    Args:
        client: who we are, ``name/1.0``.
        timeout: seconds for all of it.

    Raises:
        NoDaemon: nothing listens there.
        Failed: the server refused us or the name, was silent (``timed_out``), or hung up (``connection_lost``).
    """
    with broken_connections_are_failures(), anyio.fail_after(timeout), ExitStack() as undo:
        sock = socket.socket(fileno=(await anyio.to_thread.run_sync(open_socket, path, timeout)).detach())
        undo.callback(sock.close)
        sock.setblocking(False)
        dialogue = Dialogue()
        await _say(sock, dialogue.hello(client))
        welcomed(await _hear(sock, dialogue))
        await _say(sock, dialogue.join(name))
        answer = await _hear(sock, dialogue)
        if not isinstance(answer, ReplyFrame):
            raise failure(answer)
        undo.pop_all()
        return sock


async def _say(sock: socket.socket, data: bytes) -> None:
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            await anyio.wait_writable(sock)


async def _hear(sock: socket.socket, dialogue: Dialogue) -> ServerFrame:
    """Read one frame and not a byte more: what follows is the link's."""
    while True:
        header = await _exactly(sock, HEADER.size)
        dialogue.feed(header)  # refuses a length that is none
        for frame in dialogue.feed(await _exactly(sock, *HEADER.unpack(header))):
            return frame


async def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            piece = sock.recv(count - len(data))
        except BlockingIOError:
            await anyio.wait_readable(sock)
            continue
        if not piece:
            raise lost()
        data += piece
    return data
