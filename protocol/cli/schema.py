"""``stokehold protocol schema``: everything that can be said, as JSON Schema."""

from __future__ import annotations

import argparse

from protocol.cli.commands import subcommands
from protocol.cli.plain import print_json


def arguments(parser: argparse.ArgumentParser) -> None:
    subcommands(parser, schema="the JSON Schema of all messages, made from their types (needs no daemon)")


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    from protocol.schema import schema

    print_json(schema())
    return 0
