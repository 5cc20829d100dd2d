"""``stokehold metrics``: what Prometheus sees, fetched from where ``status`` says that it is served."""

from __future__ import annotations

import argparse
import math
import re
import socket
from typing import Any

from protocol.cli.failure import CommandFailed
from protocol.cli.place import find_place
from protocol.cli.plain import print_json, read

_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


def arguments(parser: argparse.ArgumentParser) -> None:
    """``metrics`` has no options of its own."""


def run(options: argparse.Namespace) -> int:
    """Print the metrics in Prometheus' text format, or its samples as a list of JSON objects."""
    place = find_place(options.home, options.socket)
    address = read(place, "ControlSocket", {"type": "get_status"})["http"]
    if address is None:
        raise CommandFailed(
            "the daemon serves no HTTP now", "see its warnings: stokehold status (http.port = -1 turns it off)"
        )
    text = _get(address["host"], address["port"])
    if options.json:
        print_json([sample for line in text.splitlines() if (sample := parse(line))])
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0


def _get(host: str, port: int) -> str:
    """Fetch the page by hand, as HTTP/1.0: ``http.client`` takes longer to import than all else together."""
    where = f"http://{host}:{port}/metrics"
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    data = b""
    try:
        with socket.create_connection((reachable, port), timeout=10) as connection:
            connection.sendall(f"GET /metrics HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
            while chunk := connection.recv(1 << 16):
                data += chunk
    except OSError as error:
        raise CommandFailed(f"{where}: {error.strerror or error}", "see: stokehold tree, stokehold logs") from error
    head, _, body = data.partition(b"\r\n\r\n")
    answer = head.partition(b"\r\n")[0].decode("latin-1")
    if answer.split()[1:2] != ["200"]:
        raise CommandFailed(f"{where} answered {answer or 'nothing'}", "see: stokehold logs")
    return body.decode()


def parse(line: str) -> dict[str, Any] | None:
    """Return one sample of the text format, or None for a comment. JSON has no NaN and no infinity: they are null."""
    found = _SAMPLE.fullmatch(line.strip())
    if line.startswith("#") or not found:
        return None
    name, labels, value = found.groups()
    number = float(value)
    return {
        "name": name,
        "labels": {key: _ESCAPED.sub(_unescaped, text) for key, text in _LABEL.findall(labels or "")},
        "value": number if math.isfinite(number) else None,
    }


def _unescaped(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]
