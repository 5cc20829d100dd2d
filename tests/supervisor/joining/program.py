"""Somebody else's program, which serves a guest: ``python -m tests.supervisor.joining.program PATH NAME LOOP ...``."""

from __future__ import annotations

import json
import logging
import sys
from functools import partial

import anyio

from supervisor import serve_guest
from tests.supervisor.joining.strangers import Stranger


def main() -> None:
    path, name, loop, restart, arguments = sys.argv[1:]
    logging.basicConfig(stream=sys.stderr, level="INFO")
    make = partial(Stranger, **json.loads(arguments))
    reason = anyio.run(partial(serve_guest, path, name, make, restart=restart), backend=loop)  # type: ignore[arg-type]
    print(reason)


if __name__ == "__main__":
    main()
