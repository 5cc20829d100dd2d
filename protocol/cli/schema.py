"""``stokehold protocol schema``: everything that can be said, as JSON Schema."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from protocol.cli.commands import subcommands

SCHEMA = Path(__file__).parents[1] / "wire.schema.json"
"""Written down rather than made at each call: its change shows in review, and reading it takes no time."""


def arguments(parser: argparse.ArgumentParser) -> None:
    subcommands(parser, schema="the JSON Schema of all messages, made from their types (needs no daemon)")


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    sys.stdout.write(SCHEMA.read_text())
    return 0
