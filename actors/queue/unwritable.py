"""What keeps the queue from writing and is no bug: a full disk, a read-only file system, a folder that is not ours.

None of it crashes QueueManager, and none of it costs anything: whoever asked is told and asks again, what was half done
is finished first, and it goes on by itself.
"""

from __future__ import annotations

import errno
import os
import sqlite3

from supervisor import Refused

_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE)
_SQLITE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
)
_PRIMARY = 0xFF
"""SQLite's extended result codes hold the primary one in their lowest byte."""


class Unwritable(Refused):
    """The queue cannot write now. Nothing is lost; to be asked again."""

    code = "unwritable"


def why_unwritable(error: OSError | sqlite3.Error) -> str | None:
    """Say in a few words what is wrong with the disk; None: the error tells of something else."""
    if isinstance(error, OSError):
        if error.errno not in _ERRORS:
            return None
        where = f": {os.fsencode(error.filename).decode(errors='backslashreplace')}" if error.filename else ""
        return f"the queue cannot write: {error.strerror}{where}"
    code: int = getattr(error, "sqlite_errorcode", 0)
    return f"the queue cannot write: {error} (state.sqlite3)" if code & _PRIMARY in _SQLITE else None
