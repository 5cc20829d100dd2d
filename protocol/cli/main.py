"""The entry point. ``status`` goes straight through; every other command is looked up, imported and run."""

from __future__ import annotations

import io
import os
import sys

from protocol.cli.failure import INTERRUPTED, CommandFailed
from protocol.cli.paint import clean, paint

TYPE_CHECKING = False  # without importing typing; type checkers know the name
if TYPE_CHECKING:
    from typing import TextIO

BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended: nobody reads our output any more."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 misuse, 3 no daemon at this socket."""
    words = sys.argv[1:] if arguments is None else arguments
    # A stream that the caller has closed (``>&-``) is None to Python: what is said to it goes nowhere.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its escape.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            code = _dispatch(words)
        finally:
            sys.stdout.flush()
    except CommandFailed as failure:
        return _tell(failure)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard(sys.stdout)
        _discard(sys.stderr)
        return BROKEN_PIPE
    except OSError as error:
        _discard(sys.stdout)
        where = f"{error.filename}: " if error.filename else ""
        return _tell(CommandFailed(f"{where}{error.strerror or error}"))
    return code


def _dispatch(words: list[str]) -> int:
    if "status" in words:
        from protocol.cli import status

        if (plain := status.plain_options(words)) is not None:
            return status.run(plain)
    from protocol.cli import commands

    return commands.run(words)


def _tell(failure: CommandFailed) -> int:
    first, *rest = map(clean, failure.what.split("\n"))
    try:
        print(paint("stokehold:", "red", "bold", stream=sys.stderr), first, file=sys.stderr)
        for line in rest:
            print(f"  {line}", file=sys.stderr)
        for line in filter(None, failure.next.split("\n")):
            print(paint("  →", "dim", stream=sys.stderr), clean(line), file=sys.stderr)
    except OSError:
        _discard(sys.stderr)  # nobody hears it; the exit code tells all the same
    return failure.code


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, open until the process ends


def _discard(stream: TextIO) -> None:
    """The interpreter flushes its streams once more on its way out; let them have somewhere to write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
