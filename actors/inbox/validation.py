"""Read a file once: hash it, and check each line as it comes. Never more than one line is held in memory.

A file is opened without following a symbolic link and without waiting for a writer of a pipe, and only then looked at,
so that what is checked is what was opened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from actors.inbox.rows import BadRow, Row, parse_row
from protocol.messages.common import BadLine

KEPT: Final = 1000
"""Bad lines that are kept with their reasons. The rest are counted."""

BOM: Final = b"\xef\xbb\xbf"
_DRAIN: Final = 1 << 16
REASON: Final = 300
"""Characters of a reason that are kept: some quote the line."""


class Hash(Protocol):
    """What ``hashlib`` makes."""

    def update(self, data: bytes, /) -> None: ...


class Unfit(Exception):
    """The file as a whole cannot be taken. Its text is the reason, for the person who put it there."""


class Changed(Exception):
    """The file was changed while it was read: whoever writes it is not done."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another. ``mtime_ns`` in nanoseconds since 1970."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that was read to its end."""

    stamp: Stamp
    sha256: str
    bytes: int
    rows: int
    """Lines that can be trained on."""
    bad: int
    """Lines that cannot."""
    bad_lines: tuple[BadLine, ...]
    """The first :data:`KEPT` of them."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading if it is a regular one.

    Raises:
        FileNotFoundError: it is gone.
        Unfit: it is a symbolic link, a folder, a pipe, a socket or a device, or may not be read.
        OSError: anything else that the system says.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unfit(error) or error from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise Unfit(f"not a regular file but {_kind(mode)}")
    return os.fdopen(descriptor, "rb", buffering=1 << 20)


def _on() -> None:
    """Read on."""


def read_lines(
    stream: BinaryIO, max_line: int, digest: Hash | None = None, go_on: Callable[[], None] = _on
) -> Iterator[tuple[int, bytes | None]]:
    """Yield ``(number, line)`` for each line, numbers from 1, a leading byte order mark taken off.

    A line of more than ``max_line`` bytes (its line break not counted) is passed over without being held in memory
    and comes as None. Every byte of the stream goes through ``digest``. ``go_on`` is called after every line, and often
    within one that is passed over; an exception of it ends the reading.
    """
    number = 0
    while line := stream.readline(max_line + 2):  # + 2: room for the line break, "\r\n" at most
        number += 1
        if digest is not None:
            digest.update(line)
        body = len(line.rstrip(b"\r\n"))
        if not line.endswith(b"\n"):
            while rest := stream.readline(_DRAIN):
                body += len(rest)
                if digest is not None:
                    digest.update(rest)
                go_on()
                if rest.endswith(b"\n"):
                    break
        if number == 1:
            line = line.removeprefix(BOM)
        yield number, line if body <= max_line else None
        go_on()


def read_rows(
    stream: BinaryIO, max_line: int, digest: Hash | None = None, go_on: Callable[[], None] = _on
) -> Iterator[tuple[int, Row | BadLine]]:
    """Yield ``(line number, row or what is wrong with it)`` for each line of :func:`read_lines` that is not blank."""
    for number, line in read_lines(stream, max_line, digest, go_on):
        if line is None:
            yield number, BadLine(number, f"longer than {max_line} bytes (inbox.max_line)")
        elif not line.isspace() and line:
            try:
                yield number, parse_row(line)
            except BadRow as error:
                yield number, BadLine(number, str(error)[:REASON])


def check_file(
    path: Path,
    *,
    max_line: int,
    max_file: int,
    expect: Stamp | None = None,
    go_on: Callable[[], None] = _on,
) -> Checked:
    """Read a file to its end and return what it holds.

    Args:
        max_line: longest line, in bytes.
        max_file: largest file, in bytes.
        expect: the state in which it was seen to stand still.
        go_on: called now and then, so that the reading of a large file can be ended by an exception.

    Raises:
        FileNotFoundError: it is gone.
        Unfit: it is no regular file, or too large.
        Changed: it is not in the state ``expect``, or changed while it was read.
        OSError: it could not be read to its end.
    """
    with open_regular(path) as stream:
        stamp = Stamp.of(os.fstat(stream.fileno()))
        if expect is not None and stamp != expect:
            raise Changed(path)
        if stamp.size > max_file:
            raise Unfit(f"{stamp.size} bytes, more than {max_file} (inbox.max_file)")

        def unless_it_grows() -> None:
            go_on()
            if stream.tell() > stamp.size:  # else whoever writes faster than this reads would keep it reading for ever
                raise Changed(path)

        digest = hashlib.sha256()
        rows = bad = 0
        kept: list[BadLine] = []
        for _, row in read_rows(stream, max_line, digest, unless_it_grows):
            if not isinstance(row, BadLine):
                rows += 1
                continue
            bad += 1
            if bad <= KEPT:
                kept.append(row)
        if Stamp.of(os.fstat(stream.fileno())) != stamp:
            raise Changed(path)
    return Checked(stamp, digest.hexdigest(), stamp.size, rows, bad, tuple(kept))


def why_refused(checked: Checked, on_bad_line: str) -> str | None:
    """Return why a file that was read must be refused, or None if it can be trained on. The lines tell the rest.

    ``on_bad_line`` is the setting ``data.on_bad_line``.
    """
    if checked.rows == 0:
        return "no row to train on" if checked.bad else "no row to train on: the file is empty"
    if checked.bad and on_bad_line == "refuse":
        return f"{checked.bad} of {checked.bad + checked.rows} rows cannot be trained on"
    return None


def _unfit(error: OSError) -> Unfit | None:
    match error.errno:
        case errno.ELOOP:
            return Unfit("not a regular file but a symbolic link")
        case errno.ENXIO:
            return Unfit("not a regular file but a socket or a device")
        case errno.EACCES | errno.EPERM:
            return Unfit(f"it may not be read: {error.strerror}")
        case _:
            return None


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")
