"""One question to a daemon with nothing but a socket and ``json``, for commands that must answer at once.

Also the bottom of the other clients: how a socket path is reached, and the two errors that all clients raise.
"""

from __future__ import annotations

import _socket  # what ``socket`` wraps: its enums and selectors take longer to import than a question to answer
import json
import os
from struct import pack

TYPE_CHECKING = False  # as typing has it, without the time to import it
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CHUNK = 1 << 16

PATH_LIMIT = 107
"""Bytes of a Unix socket path that fit into the kernel's ``sun_path``, beside the NUL."""

_HELLO = {"type": "hello", "min": 1, "max": 1, "client": "quick/1.0"}

GRACE = 2.0
"""Seconds that a client waits past its own deadline: so the server's typed failure comes first."""


class NoDaemon(Exception):
    """Nothing listens at this socket."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no daemon at {path}")
        self.path = path


class Failed(Exception):
    """The daemon answered with a failure, or the connection to it broke. ``code`` is one of ``protocol.wire.Code``."""

    def __init__(self, code: str, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


def open_socket(path: str | os.PathLike[str], timeout: float) -> _socket.socket:
    """Return a connected socket, whatever the length of the path, that gives up after ``timeout`` seconds.

    For one with all the methods of the standard library: ``socket.socket(fileno=open_socket(...).detach())``.

    Raises:
        NoDaemon: there is no socket, or nobody listens on it.
        Failed: we may not (``not_allowed``), or it does not accept in time (``timed_out``).
    """
    name = os.fspath(path)
    folder = -1
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        # A non-blocking connect does not wait for room in the backlog: so block, with the kernel's own time limit.
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, pack("ll", int(timeout), int(timeout % 1 * 1e6) or 1))
        address = name
        if len(os.fsencode(name)) > PATH_LIMIT:
            parent, _, last = name.rpartition("/")
            folder = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY)
            address = f"/proc/self/fd/{folder}/{last}"
        sock.connect(address)
        sock.settimeout(timeout)
    except OSError as error:
        sock.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            raise NoDaemon(name) from error
        if isinstance(error, PermissionError):
            raise Failed("not_allowed", f"{name}: permission denied; it belongs to another user") from error
        if isinstance(error, BlockingIOError | TimeoutError):
            raise Failed("timed_out", f"the daemon at {name} does not accept connections") from error
        raise Failed("connection_lost", f"{name}: {error}") from error
    finally:
        if folder >= 0:
            os.close(folder)
    return sock


def ask(socket_path: str | os.PathLike[str], to: str, body: dict[str, Any], timeout: float = 5.0) -> Any:
    """Send one request and return the body of its reply, as plain data.

    Raises:
        NoDaemon: nothing listens there.
        Failed: the daemon refused or failed, did not answer in time, or the connection broke.
    """
    # Unique among all that this server remembers: a repeated id would be answered from memory.
    request = {"type": "request", "id": "q" + os.urandom(12).hex(), "to": to, "timeout": timeout, "body": body}
    with _Conversation(socket_path, to, timeout) as sock:
        sock.sendall(f"{json.dumps(_HELLO)}\n{json.dumps(request)}\n".encode())
        for line in _lines(sock):
            frame = json.loads(line)
            if frame["type"] == "reply":
                return frame["body"]
            if frame["type"] == "error":
                raise Failed(frame["code"], frame["message"], frame.get("detail"))
    raise Failed("connection_lost", "the daemon closed the connection before it answered")


class _Conversation:
    """A socket for the length of a block, and the ways in which it can break as :class:`Failed`."""

    def __init__(self, path: str | os.PathLike[str], to: str, timeout: float) -> None:
        self._path = path
        self._to = to
        self._timeout = timeout
        self._socket = open_socket(path, timeout + GRACE)

    def __enter__(self) -> _socket.socket:
        return self._socket

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._socket.close()
        if isinstance(error, TimeoutError):
            text = f"no answer from {self._to} within {self._timeout:g} s; whether it was done is unknown"
            raise Failed("timed_out", text) from error
        if isinstance(error, OSError):
            raise Failed("connection_lost", f"the connection broke: {error}") from error
        if isinstance(error, ValueError | TypeError | KeyError):
            raise Failed("bad_frame", f"what listens at {os.fspath(self._path)} is no stokehold daemon") from error


def tell(socket_path: str | os.PathLike[str], to: str, body: dict[str, Any], timeout: float = 5.0) -> None:
    """Say something that is not answered, and return once the daemon has passed it on.

    Raises:
        NoDaemon: nothing listens there.
        Failed: the daemon refused it, is silent, or the connection broke.
    """
    with _Conversation(socket_path, to, timeout) as sock:
        sock.sendall(f"{json.dumps(_HELLO)}\n{json.dumps({'type': 'cast', 'to': to, 'body': body})}\n".encode())
        sock.shutdown(_socket.SHUT_WR)  # whatever was wrong with it is said before the server hangs up, too
        welcomed = False
        for line in _lines(sock):
            frame = json.loads(line)
            welcomed = welcomed or frame["type"] == "welcome"
            if frame["type"] == "error":
                raise Failed(frame["code"], frame["message"], frame.get("detail"))
        if not welcomed:
            raise Failed("connection_lost", "the daemon closed the connection before it answered")


def _lines(sock: _socket.socket) -> Iterator[bytes]:
    """Yield complete lines until the stream ends."""
    parts: list[bytes] = []
    while data := sock.recv(CHUNK):
        *ends, rest = data.split(b"\n")
        for end in ends:
            yield b"".join([*parts, end])
            parts = []
        parts.append(rest)
