"""Reading commands ask without msgspec: its import alone costs twice what the whole command should.

They print what came over the wire as it came; the daemon made it from typed records, and tests compare the two.
"""

from __future__ import annotations

import json
import sys

from protocol.cli.failure import no_daemon, refused
from protocol.cli.place import Place
from protocol.quick import Failed, NoDaemon, ask

TYPE_CHECKING = False  # without importing typing; type checkers know the name
if TYPE_CHECKING:
    from typing import Any


def read(place: Place, to: str, body: dict[str, Any], timeout: float = 5.0) -> Any:
    """Ask an actor and return its answer as plain data.

    Raises:
        CommandFailed: no daemon there, or it did not answer, or refused.
    """
    try:
        return ask(place.socket, to, body, timeout)
    except NoDaemon as error:
        raise no_daemon(place) from error
    except Failed as error:
        raise refused(error, place) from error


def print_json(value: Any, *, on_one_line: bool = False) -> None:
    """Print plain data as JSON, in whatever the terminal's encoding: what is not UTF-8 gets JSON's own escapes."""
    utf8 = sys.stdout.encoding.lower() == "utf-8"
    print(json.dumps(value, indent=None if on_one_line else 2, ensure_ascii=not utf8), flush=on_one_line)
