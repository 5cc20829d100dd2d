"""A Unix socket on the file system: published whole, taken over when stale, removed only if it is still ours."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from protocol.handler import Peer
from protocol.quick import PATH_LIMIT

BACKLOG = 1024

_CREDENTIALS = struct.Struct("3i")


class SocketTaken(OSError):
    """The path is in use: a live server answers there, or it is no socket and not ours to remove."""


class Listening:
    """A listening, non-blocking socket under its final name."""

    def __init__(self, sock: socket.socket, path: Path, identity: tuple[int, int]) -> None:
        self.socket = sock
        self.path = path
        self._identity = identity

    @property
    def in_place(self) -> bool:
        """Whether the path still leads to this socket: cleaners of temporary folders remove what they do not know."""
        try:
            found = self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        """Stop listening, and remove the file if it is ours."""
        self.socket.close()
        if self.in_place:
            self.path.unlink(missing_ok=True)


@contextmanager
def listening(path: Path) -> Iterator[Listening]:
    """Publish a socket at ``path``, mode 0600, in a folder that is made (0700) if it is not there.

    It is bound under a temporary name, given its mode, made to listen, and only then renamed to its final name: nobody
    ever sees it half ready or open to others. A path of any length works.

    Raises:
        SocketTaken: a live server answers there, or something that is no socket is in the way.
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_if_taken(path, folder)
        temporary = f".{path.name[:64]}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(_address(path.parent / temporary, folder))
            os.chmod(temporary, 0o600, dir_fd=folder)
            sock.listen(BACKLOG)
            found = os.stat(temporary, dir_fd=folder, follow_symlinks=False)
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            sock.close()
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)
    published = Listening(sock, path, (found.st_dev, found.st_ino))
    try:
        yield published
    finally:
        published.close()


def peer_of(sock: socket.socket) -> Peer:
    """Return who connected, by the kernel's word (SO_PEERCRED)."""
    return Peer(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def may_command(peer: Peer) -> bool:
    """Only the user whom the daemon runs as, and root."""
    return peer.uid in (0, os.geteuid())


def hung_up(sock: socket.socket) -> bool:
    """Whether the other end is closed for good, not merely done with writing."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def _refuse_if_taken(path: Path, folder: int) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketTaken(errno.EEXIST, "there is something else than a socket; move it away", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(_address(path, folder))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # nobody listens: a server that was killed left it behind
        except BlockingIOError:
            pass  # its backlog is full, so it lives
    raise SocketTaken(errno.EADDRINUSE, "another server answers at this socket", str(path))


def _address(path: Path, folder: int) -> str:
    text = str(path)
    return text if len(os.fsencode(text)) <= PATH_LIMIT else f"/proc/self/fd/{folder}/{path.name}"
