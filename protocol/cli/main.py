"""The entry point. ``status`` goes straight through; every other command is looked up, imported and run."""

from __future__ import annotations

import io
import os
import sys

from protocol.cli.failure import INTERRUPTED, CommandFailed
from protocol.cli.paint import clean, paint

BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended: nobody reads our output any more."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 misuse, 3 no daemon at this socket."""
    words = sys.argv[1:] if arguments is None else arguments
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
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        _discard_output()
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
    print(paint("stokehold:", "red", "bold", stream=sys.stderr), first, file=sys.stderr)
    for line in rest:
        print(f"  {line}", file=sys.stderr)
    for line in filter(None, failure.next.split("\n")):
        print(paint("  →", "dim", stream=sys.stderr), clean(line), file=sys.stderr)
    return failure.code


def _discard_output() -> None:
    """The interpreter flushes stdout once more on its way out; let it have somewhere to write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
